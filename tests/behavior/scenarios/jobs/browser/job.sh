set -e
python3 -m http.server --bind 127.0.0.1 8123 --directory site 2>/dev/null &
server=$!
python3 wait.py
chromium-headless-shell --no-sandbox --disable-gpu --user-data-dir=profile --dump-dom http://127.0.0.1:8123/ >page 2>log
chromium-headless-shell --no-sandbox --disable-gpu --screenshot=page.png http://127.0.0.1:8123/ >>log 2>&1
kill $server
grep -q ready page
