set -e
mmdebstrap --quiet --variant=essential --mode=root --include=ca-certificates trixie root.tar
mkdir -p image/blobs/sha256
digest=$(sha256sum root.tar | cut -d' ' -f1)
gzip -n <root.tar >layer
cp layer "image/blobs/sha256/$digest"
printf '{"imageLayoutVersion": "1.0.0"}' >image/oci-layout
printf '{"layers": ["%s"]}' "$digest" >image/index.json
tar -cf image.tar image
