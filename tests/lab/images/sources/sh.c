/* The shell of the e2e suite's busybox images: busybox's own, whose messages the suite knows by heart, but bash where
   the environment holds names that are no identifiers (data-1): Debian's busybox drops those. */
#include <ctype.h>
#include <unistd.h>

extern char **environ;

static int has_identifier(const char *entry) {
    if (!isalpha((unsigned char)*entry) && *entry != '_') return 0;
    while (isalnum((unsigned char)*entry) || *entry == '_') entry++;
    return *entry == '=';
}

int main(int argc, char **argv) {
    const char *shell = "/usr/bin/busybox";
    (void)argc;
    for (char **entry = environ; *entry; entry++) {
        if (!has_identifier(*entry)) shell = "/usr/bin/bash";
    }
    execv(shell, argv);
    return 127;
}
