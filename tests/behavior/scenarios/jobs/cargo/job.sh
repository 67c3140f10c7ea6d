set -e
cargo build -q --release --offline
cargo test -q --offline >log
target/release/shop
