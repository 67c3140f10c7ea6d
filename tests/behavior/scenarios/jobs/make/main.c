#include <stdio.h>
int price(int);
int order(int);
int main(void)
{
	printf("%d %d\n", price(1), order(2));
}
