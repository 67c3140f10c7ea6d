mkdir -p /var/spool/exim4 /var/log/exim4 /var/mail
chown -R Debian-exim: /var/spool/exim4 /var/log/exim4
chmod 777 /var/mail
exec exim4 -bdf -q1h
