const test = require('node:test'), fs = require('node:fs'), os = require('node:os'), path = require('node:path');
test('price', () => { const at = fs.mkdtempSync(path.join(os.tmpdir(), 'shop-')); fs.writeFileSync(path.join(at, 'a'), ''); fs.rmSync(at, {recursive: true}); });
test('server', (t, done) => { const s = require('express')().listen(0, () => s.close(done)); });
