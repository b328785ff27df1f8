/* Says on standard error in which library a process trapped, before it dies of it.
 *
 *   LD_PRELOAD=trapsite.so program
 *
 * A trap in the program itself is a broken invariant; one in libdispatch is the Swift runtime's own. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static void say(const char *text) {
    if (write(STDERR_FILENO, text, strlen(text)) < 0) return;
}

static void trapped(int number, siginfo_t *info, void *context) {
    (void)context;
    Dl_info site;
    say("trapped in ");
    say(dladdr(info->si_addr, &site) != 0 && site.dli_fname != NULL ? site.dli_fname : "an unknown place");
    say("\n");
    signal(number, SIG_DFL);
    raise(number);
}

__attribute__((constructor)) static void watch(void) {
    struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGILL, &action, NULL);
    sigaction(SIGTRAP, &action, NULL);
}
