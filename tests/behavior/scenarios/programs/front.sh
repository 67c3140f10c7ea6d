mkdir -p /var/cache/nginx
exec nginx
