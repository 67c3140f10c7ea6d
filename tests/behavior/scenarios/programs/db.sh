# As the entrypoint of PostgreSQL's image: makes the database at the first start, as a user of its own.
set -e
export PATH=/usr/lib/postgresql/17/bin:$PATH PGDATA=/var/lib/postgresql/data
if [ "$(id -u)" = 0 ]; then
  mkdir -p "$PGDATA" /var/run/postgresql
  chmod 700 "$PGDATA"
  chown -R postgres: /var/lib/postgresql /var/run/postgresql
  exec setpriv --reuid=postgres --regid=postgres --clear-groups sh "$0"
fi
if ! [ -s "$PGDATA/PG_VERSION" ]; then
  initdb --no-sync --auth=trust --locale=C.UTF-8 >/dev/null
  echo "host all all all trust" >>"$PGDATA/pg_hba.conf"
  pg_ctl -w -o "-c listen_addresses=''" -l /tmp/setup.log start >/dev/null
  psql -q -d postgres -c 'CREATE DATABASE shop'
  pg_ctl -w -m fast stop >/dev/null
fi
exec postgres -c listen_addresses='*' -c logging_collector=on
