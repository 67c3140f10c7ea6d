export ETCDCTL_API=3
for number in $(seq "$(shuf -i 10-40 -n 1)"); do
  etcdctl --endpoints=http://keys:2379 put "key$number" "$number" >/dev/null
done
etcdctl --endpoints=http://keys:2379 get key1 >/dev/null
etcdctl --endpoints=http://keys:2379 snapshot save /data/snapshot >/dev/null
