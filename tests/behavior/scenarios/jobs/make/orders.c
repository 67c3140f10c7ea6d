int order(int n)
{
	return n + 1;
}
