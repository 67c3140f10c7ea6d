fn main() { println!("{}", prices::price("tea")); }
