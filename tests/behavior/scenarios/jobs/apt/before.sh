set -e
test -e "$CACHE/debian.tar" || mmdebstrap --quiet --variant=minbase --mode=root trixie "$CACHE/debian.tar"
mkdir root
tar -xf "$CACHE/debian.tar" -C root
cp /etc/resolv.conf root/etc/
chroot root apt-get -qq update
