/*
 * After it has read a byte, its threads lock mutexes, one thread after the other, so that none ever waits. Two cycles:
 * a then b, and b then a; and j, k and l in a cycle of three. Not cycles: c and d in both orders, since g guards them;
 * e and f in both orders, since the same thread locks them; h and i in both orders, since the second one is locked with
 * trylock; p and q in both orders, since p is another mutex the second time. Then it writes a byte, and ends after it
 * has read the next one.
 */
#include <pthread.h>
#include <unistd.h>

#define MUTEX(NAME) static pthread_mutex_t NAME = PTHREAD_MUTEX_INITIALIZER

MUTEX(a);
MUTEX(b);
MUTEX(c);
MUTEX(d);
MUTEX(e);
MUTEX(f);
MUTEX(g);
MUTEX(h);
MUTEX(i);
MUTEX(j);
MUTEX(k);
MUTEX(l);
MUTEX(p);
MUTEX(q);

static void both(pthread_mutex_t *first, pthread_mutex_t *second)
{
	pthread_mutex_lock(first);
	pthread_mutex_lock(second);
	pthread_mutex_unlock(second);
	pthread_mutex_unlock(first);
}

__attribute__((noinline)) void *forwards(void *unused)
{
	pthread_mutex_lock(&a);
	pthread_mutex_lock(&b);
	pthread_mutex_unlock(&b);
	pthread_mutex_unlock(&a);
	return unused;
}

__attribute__((noinline)) void *backwards(void *unused)
{
	pthread_mutex_lock(&b);
	pthread_mutex_lock(&a);
	pthread_mutex_unlock(&a);
	pthread_mutex_unlock(&b);
	return unused;
}

static void *guarded(void *turned)
{
	pthread_mutex_lock(&g);
	both(turned ? &d : &c, turned ? &c : &d);
	pthread_mutex_unlock(&g);
	return NULL;
}

static void *alone(void *unused)
{
	both(&e, &f);
	both(&f, &e);
	return unused;
}

static void *tries(void *turned)
{
	pthread_mutex_lock(turned ? &i : &h);
	if (pthread_mutex_trylock(turned ? &h : &i) == 0)
		pthread_mutex_unlock(turned ? &h : &i);
	pthread_mutex_unlock(turned ? &i : &h);
	return NULL;
}

static void *one(void *unused)
{
	both(&j, &k);
	return unused;
}

static void *two(void *unused)
{
	both(&k, &l);
	return unused;
}

static void *three(void *unused)
{
	both(&l, &j);
	return unused;
}

static void *renewed(void *turned)
{
	both(turned ? &q : &p, turned ? &p : &q);
	return NULL;
}

static void thread(void *(*work)(void *), void *argument)
{
	pthread_t made;

	pthread_create(&made, NULL, work, argument);
	pthread_join(made, NULL);
}

int main(void)
{
	char byte;

	if (read(0, &byte, 1) < 0)
		return 1;
	thread(forwards, NULL);
	thread(backwards, NULL);
	thread(guarded, NULL);
	thread(guarded, "turned");
	thread(alone, NULL);
	thread(tries, NULL);
	thread(tries, "turned");
	thread(one, NULL);
	thread(two, NULL);
	thread(three, NULL);
	thread(renewed, NULL);
	pthread_mutex_destroy(&p);
	pthread_mutex_init(&p, NULL);
	thread(renewed, "turned");
	/* An order that was reported is not reported again. */
	thread(backwards, NULL);
	if (write(1, "", 1) < 0 || read(0, &byte, 1) < 0)
		return 1;
	return 0;
}
