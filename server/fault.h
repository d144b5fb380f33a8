/* Fault points: named places where a test may end, stop or slow this process. In the program they are nothing at all.
 *
 * The program `denoised-faults` (make tests-build) is the same sources with DN_FAULT_POINTS. There a point obeys the environment
 *     DENOISED_FAULT=NAME:COUNT[:ACTION][,...]
 * at the COUNTth time that this process passes it. ACTION: kill (SIGKILL to itself, the default), stop (SIGSTOP), exit (status 70 at
 * once), slowMS (sleeps MS milliseconds at this and every later pass). With DENOISED_FAULT_FIRED=FILE the name is appended to FILE, as a
 * line, before the action (but for slow), and a process does not arm what stands in FILE when it starts: so a worker that is started again
 * goes on.
 * Every point stands in the table of server/README.md. Any thread. */
#ifndef SERVER_FAULT_H
#define SERVER_FAULT_H

#ifdef DN_FAULT_POINTS
void fault_point(const char *name);
#else
#define fault_point(name) ((void)0)
#endif

#endif
