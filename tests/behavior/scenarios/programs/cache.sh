# As the entrypoint of redis's image: a user of its own, whom its data belong to.
set -e
chown -R redis: /data
exec setpriv --reuid=redis --regid=redis --clear-groups redis-server /etc/redis/redis.conf
