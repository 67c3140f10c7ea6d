set -e
npm install --no-audit --no-fund --silent
npx tsc shop.ts
npm test >log
