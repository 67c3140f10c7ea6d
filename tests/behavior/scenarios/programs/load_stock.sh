sql() {
  mariadb --skip-ssl -h stock -u root "$@"
}
until sql -e 'SELECT 1' shop >/dev/null 2>&1; do sleep 0.2; done
sql shop -e 'CREATE TABLE carts (id int PRIMARY KEY AUTO_INCREMENT, text text)'
for number in $(seq "$(shuf -i 5-20 -n 1)"); do
  sql shop -e "INSERT INTO carts (text) SELECT repeat('x', $number * 100) FROM seq_1_to_1000"
done
sql shop -e 'SELECT text, count(*) FROM carts GROUP BY text ORDER BY text DESC' >/dev/null
sql shop -e 'ALTER TABLE carts ADD COLUMN price int; OPTIMIZE TABLE carts' >/dev/null
