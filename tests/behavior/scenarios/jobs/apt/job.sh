set -e
chroot root apt-get install -qq -y --no-install-recommends git >log 2>&1
