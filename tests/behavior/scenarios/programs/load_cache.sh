redis-benchmark -h cache -n "$(shuf -i 500-1500 -n 1)" -c 10 -t set,get,incr,lpush -q >/dev/null
[ "$(redis-cli -h cache ping)" = PONG ]
redis-cli -h cache save >/dev/null
redis-cli -h cache bgrewriteaof >/dev/null
rewritten() {
  case "$(redis-cli -h cache info persistence)" in
    *aof_rewrite_in_progress:0*) ;;
    *) return 1 ;;
  esac
}
until rewritten; do :; done
redis-cli -h cache set greeting "$(date)" >/dev/null
