# As the entrypoint of MariaDB's image: makes the database at the first start.
set -e
mkdir -p /var/lib/mysql /run/mysqld
chown -R mysql: /var/lib/mysql /run/mysqld
mariadb-install-db --user=mysql --datadir=/var/lib/mysql --skip-test-db --auth-root-authentication-method=normal >/dev/null
printf "CREATE DATABASE shop;\nCREATE USER root@'%%';\nGRANT ALL ON *.* TO root@'%%';\n" >/srv/start.sql
exec mariadbd --user=mysql --datadir=/var/lib/mysql --init-file=/srv/start.sql
