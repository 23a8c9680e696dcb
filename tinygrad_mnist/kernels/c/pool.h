/* A pool of threads that deals out the parts of one call.

   Workers sleep between calls (nothing spins), start when first needed, and block all signals, which are left to the threads of the program.
   A caller works, too, so that a worker that wakes late costs no more than its share. A second caller, while the pool is busy, computes all
   parts itself, as does any caller without POSIX threads. After a fork the child begins with no workers. */
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <signal.h>

enum { MOST_WORKERS = 255 };

typedef void part_function(void *context, ptrdiff_t part, int worker); /* `worker` is less than the number of threads; 0 is the caller */

static struct {
    pthread_mutex_t busy, lock; /* held by a caller for the whole call; held to look at what follows */
    pthread_cond_t called, done, turned;
    int workers, registered; /* threads that exist; whether forks are taken care of */
    unsigned long call;      /* counts the calls */
    int wanted, working;     /* how many workers the present call may have, 0 without one; how many are at it */
    ptrdiff_t parts, next;
    part_function *function;
    void *context;
} pool = {
    .busy = PTHREAD_MUTEX_INITIALIZER,
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .called = PTHREAD_COND_INITIALIZER,
    .done = PTHREAD_COND_INITIALIZER,
    .turned = PTHREAD_COND_INITIALIZER,
};

static void pool_in_child(void) /* after a fork only the thread that called it is left */
{
    pthread_mutex_init(&pool.busy, NULL);
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.called, NULL);
    pthread_cond_init(&pool.done, NULL);
    pthread_cond_init(&pool.turned, NULL);
    pool.workers = pool.wanted = pool.working = 0;
}

static void pool_take(int worker) /* parts, as long as there are any */
{
    for (ptrdiff_t part; (part = __atomic_fetch_add(&pool.next, 1, __ATOMIC_RELAXED)) < pool.parts;)
        pool.function(pool.context, part, worker);
}

static void *pool_work(void *number)
{
    const int worker = (int)(ptrdiff_t)number;
    unsigned long seen = 0;
    pthread_mutex_lock(&pool.lock);
    for (;;) {
        while (pool.call == seen || worker > pool.wanted)
            pthread_cond_wait(&pool.called, &pool.lock);
        seen = pool.call;
        pool.working++;
        pthread_mutex_unlock(&pool.lock);
        pool_take(worker);
        pthread_mutex_lock(&pool.lock);
        if (!--pool.working)
            pthread_cond_signal(&pool.done);
    }
    return NULL;
}

/* Have `wanted` workers, or as many as can be started; returns how many of them there are. */
static int pool_start(int wanted)
{
    sigset_t all, before;
    if (!pool.registered)
        pool.registered = !pthread_atfork(NULL, NULL, pool_in_child);
    if (!pool.registered)
        return 0;
    sigfillset(&all);
    if (pool.workers < wanted && !pthread_sigmask(SIG_SETMASK, &all, &before)) {
        for (pthread_t thread; pool.workers < wanted; pool.workers++) {
            if (pthread_create(&thread, NULL, pool_work, (void *)(ptrdiff_t)(pool.workers + 1)))
                break;
            pthread_detach(thread);
        }
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    return (int)min(pool.workers, wanted);
}

/* Call `function` for each part from 0 to `parts` - 1, on up to `threads` threads; returns when all are done. Parts begin in their order. */
static void in_parallel(ptrdiff_t threads, ptrdiff_t parts, part_function *function, void *context)
{
    const int wanted = (int)min(min(threads, parts) - 1, MOST_WORKERS);
    if (wanted < 1 || pthread_mutex_trylock(&pool.busy)) {
        for (ptrdiff_t part = 0; part < parts; part++)
            function(context, part, 0);
        return;
    }
    pthread_mutex_lock(&pool.lock);
    pool.function = function;
    pool.context = context;
    pool.parts = parts;
    pool.next = 0;
    pool.call++;
    pool.wanted = pool_start(wanted);
    pthread_cond_broadcast(&pool.called);
    pthread_mutex_unlock(&pool.lock);
    pool_take(0);
    pthread_mutex_lock(&pool.lock);
    pool.wanted = 0; /* who has not woken by now is not waited for */
    while (pool.working)
        pthread_cond_wait(&pool.done, &pool.lock);
    pthread_mutex_unlock(&pool.lock);
    pthread_mutex_unlock(&pool.busy);
}

/* Wait until the parts before this one have taken their turns: what they add up is then the same for any number of threads. */
static void wait_for_turn(const ptrdiff_t *turn, ptrdiff_t part)
{
    pthread_mutex_lock(&pool.lock);
    while (*turn != part)
        pthread_cond_wait(&pool.turned, &pool.lock);
    pthread_mutex_unlock(&pool.lock);
}

static void end_turn(ptrdiff_t *turn)
{
    pthread_mutex_lock(&pool.lock);
    ++*turn;
    pthread_cond_broadcast(&pool.turned);
    pthread_mutex_unlock(&pool.lock);
}
#else
enum { MOST_WORKERS = 0 };

typedef void part_function(void *context, ptrdiff_t part, int worker);

static void in_parallel(ptrdiff_t threads, ptrdiff_t parts, part_function *function, void *context)
{
    for (ptrdiff_t part = 0; part < parts; part++)
        function(context, part, 0);
}

static void wait_for_turn(const ptrdiff_t *turn, ptrdiff_t part) {}

static void end_turn(ptrdiff_t *turn) { ++*turn; }
#endif
