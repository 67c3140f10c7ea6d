export PATH=/usr/lib/postgresql/17/bin:$PATH
psql -q -h db -U postgres -d shop -c 'CREATE TABLE carts (id int PRIMARY KEY, text text)'
pgbench -q -i -s 1 -h db -U postgres shop 2>/dev/null
pgbench -c 3 -t "$(shuf -i 20-60 -n 1)" -h db -U postgres shop >/dev/null 2>&1
psql -q -h db -U postgres -d shop -c "INSERT INTO carts SELECT n, repeat('x', 1000) FROM generate_series(1, 1000) n" -c CHECKPOINT
pg_dump -h db -U postgres shop >/dev/null
