"""Seven further servers, each with its load, besides those of workloads.py: scenarios that are only run by hand."""

from tests.behavior.scenarios.workloads import WORKLOADS, Workload, text_of

_APACHE = """ServerRoot /etc/apache2
ServerName web
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
LoadModule autoindex_module /usr/lib/apache2/modules/mod_autoindex.so
Listen 80
User www-data
Group www-data
DocumentRoot /srv/www
PidFile /run/apache2.pid
ErrorLog /var/log/apache2/error.log
CustomLog /var/log/apache2/access.log "%h %r"
"""
_HAPROXY = """global
  user haproxy
  group haproxy
  stats socket /run/haproxy.sock
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
resolvers cluster
  parse-resolv-conf
frontend web
  bind :80
  default_backend web
backend web
  option httpchk GET /
  server one web:80 check inter 500ms resolvers cluster
  server two web:80 check inter 500ms source 0.0.0.0
"""
_EXIM = """primary_hostname = mail
domainlist local_domains = mail
acl_smtp_rcpt = accept
log_file_path = /var/log/exim4/%slog
local_interfaces = 0.0.0.0
begin routers
local:
  driver = accept
  transport = box
begin transports
box:
  driver = appendfile
  file = /var/mail/all
  user = mail
  group = mail
"""
_DNSMASQ = "no-resolv\nno-hosts\naddress=/shop.example/192.0.2.1\nuser=nobody\ncache-size=100\n"
_HOME = {"srv/www/index.html": "<h1>Hello</h1>\n", "srv/www/files/a.txt": "a\n"}

WEB = Workload(
    "web",
    "apache2-bin",
    "mkdir -p /var/log/apache2\nexec apache2 -DFOREGROUND -f /etc/apache2/apache2.conf\n",
    80,
    "python3 /srv/load.py web 80 / /index.html /files/a.txt /missing",
    files={"etc/apache2/apache2.conf": _APACHE, **_HOME},
)
BALANCER = Workload(
    "balancer",
    "haproxy",
    "exec haproxy -W -f /etc/haproxy/haproxy.cfg\n",
    80,
    "python3 /srv/load.py balancer 80 / /index.html /missing",
    files={"etc/haproxy/haproxy.cfg": _HAPROXY},
)
MEMORY = Workload(
    "memory",
    "memcached",
    "exec memcached -u app -l 0.0.0.0\n",
    11211,
    "python3 /srv/fill_memory.py",
)
STOCK = Workload(
    "stock",
    "mariadb-server-core",
    text_of("stock.sh"),
    3306,
    text_of("load_stock.sh"),
    kind="StatefulSet",
)
NAMES = Workload(
    "names",
    "dnsmasq-base",
    "exec dnsmasq -k -C /etc/names.conf\n",
    53,
    "python3 /srv/ask_names.py",
    files={"etc/names.conf": _DNSMASQ},
)
KEYS = Workload(
    "keys",
    "etcd-server",
    "exec etcd --data-dir /data/etcd --listen-client-urls http://0.0.0.0:2379 --advertise-client-urls http://keys:2379\n",
    2379,
    text_of("load_keys.sh"),
    kind="StatefulSet",
)
MAIL = Workload(
    "mail",
    "exim4-daemon-light",
    text_of("mail.sh"),
    25,
    "python3 /srv/send_mail.py",
    files={"etc/exim4/exim4.conf": _EXIM},
)
SERVERS = (*WORKLOADS, WEB, BALANCER, MEMORY, STOCK, NAMES, KEYS, MAIL)
