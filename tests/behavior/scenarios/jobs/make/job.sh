set -e
make -j2 >log
