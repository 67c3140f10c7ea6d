package main

import (
	"fmt"

	"example.com/shop/prices"
)

func main() {
	fmt.Println(prices.Price("tea"))
}
