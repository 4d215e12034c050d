/* The process that holds a pod's namespaces: waits for its end and, as PID 1 of a shared PID namespace, reaps orphans. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
    sigset_t watched;
    sigemptyset(&watched);
    sigaddset(&watched, SIGCHLD);
    sigaddset(&watched, SIGINT);
    sigaddset(&watched, SIGTERM);
    if (sigprocmask(SIG_BLOCK, &watched, 0) != 0)
        return 1;
    for (;;) {
        int caught = 0;
        if (sigwait(&watched, &caught) != 0)
            return 1;
        if (caught != SIGCHLD)
            return 0;
        while (waitpid(-1, 0, WNOHANG) > 0) {
        }
    }
}
