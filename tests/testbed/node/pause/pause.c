// Holds a pod's namespaces open until it is told to end.
#include <signal.h>
#include <unistd.h>

static void end(int signal) {
  (void)signal;
  _exit(0);
}

int main(void) {
  signal(SIGINT, end);
  signal(SIGTERM, end);
  // Orphans of a pod that shares its pid namespace end up here; nobody waits for them.
  signal(SIGCHLD, SIG_IGN);
  for (;;) pause();
}
