/* Where messages go: standard error, which must never hold anybody up.
 *
 * A journal, a pipe to a logger or a terminal that is held may stop reading. A message is then left out, rather than that the daemon or
 * its worker, which inherits the descriptor, stands still in the middle of a write. */
#ifndef SERVER_LOG_SINK_H
#define SERVER_LOG_SINK_H

/* Makes writes to standard error give up at once when its reader does not read. Files are left as they are. Before threads start. */
void log_never_blocks(void);

#endif
