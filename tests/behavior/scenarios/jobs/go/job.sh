set -e
go vet ./...
go build -o shop .
./shop
go test ./... >log
