/* Tells which user it runs as. Installed setuid root: without no_new_privs anybody who starts it is root. */
#include <stdio.h>
#include <unistd.h>

int main(void) {
    printf("Effective uid: %d\n", (int)geteuid());
    return 0;
}
