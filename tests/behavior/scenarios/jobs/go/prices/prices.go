package prices

func Price(name string) int { return len(name) }
