/* The one use that the node suite makes of an applet which Debian's busybox lacks: `nmeter -d0 '%3t' | head -n1` is the
   time of day with milliseconds, which busybox's own date cannot tell. */
#include <stdio.h>
#include <sys/time.h>
#include <time.h>

int main(void) {
    struct timeval now;
    struct tm day;
    gettimeofday(&now, NULL);
    localtime_r(&now.tv_sec, &day);
    printf("%02d:%02d:%02d.%03ld\n", day.tm_hour, day.tm_min, day.tm_sec, (long)now.tv_usec / 1000);
    return 0;
}
