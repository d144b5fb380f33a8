/* What the linker puts in place of the system's functions (SIM_WRAPPED in the Makefile), and the real ones that are still needed. */
#ifndef DN_TESTS_SIM_WRAPPED_H
#define DN_TESTS_SIM_WRAPPED_H

#include <dirent.h>
#include <poll.h>
#include <pthread.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <time.h>

int __wrap_open(const char *path, int flags, ...);
int __wrap_openat(int folder, const char *name, int flags, ...);
int __wrap_close(int fd);
ssize_t __wrap_read(int fd, void *out, size_t count);
ssize_t __wrap_write(int fd, const void *bytes, size_t count);
ssize_t __wrap_pwrite(int fd, const void *bytes, size_t count, off_t offset);
int __wrap_fsync(int fd);
int __wrap_fstat(int fd, struct stat *out);
int __wrap_stat(const char *path, struct stat *out);
int __wrap_statfs(const char *path, struct statfs *out);
int __wrap_statvfs(const char *path, struct statvfs *out);
int __wrap_flock(int fd, int operation);
int __wrap_posix_fallocate(int fd, off_t offset, off_t bytes);
int __wrap_unlink(const char *path);
int __wrap_unlinkat(int folder, const char *name, int flags);
int __wrap_rename(const char *from, const char *to);
int __wrap_renameat(int from_folder, const char *from, int to_folder, const char *to);
int __wrap_mkdir(const char *path, mode_t mode);
DIR *__wrap_opendir(const char *path);
DIR *__wrap_fdopendir(int fd);
struct dirent *__wrap_readdir(DIR *listing);
int __wrap_closedir(DIR *listing);
int __wrap_dirfd(DIR *listing);
int __wrap_eventfd(unsigned count, int flags);
int __wrap_eventfd_read(int fd, eventfd_t *out);
int __wrap_eventfd_write(int fd, eventfd_t value);
int __wrap_socketpair(int domain, int type, int protocol, int out[2]);
ssize_t __wrap_send(int fd, const void *bytes, size_t count, int flags);
ssize_t __wrap_recv(int fd, void *out, size_t count, int flags);
int __wrap_poll(struct pollfd *asked, nfds_t count, int timeout_ms);
ssize_t __wrap_getrandom(void *out, size_t count, unsigned flags);
int __wrap_posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes,
                       char *const arguments[], char *const environment[]);
int __wrap_posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t *actions, int fd, int as);
int __wrap_pidfd_open(pid_t pid, unsigned flags);
int __wrap_kill(pid_t pid, int signal);
pid_t __wrap_waitpid(pid_t pid, int *status, int options);

int __wrap_clock_gettime(clockid_t id, struct timespec *out);
int __wrap_pthread_create(pthread_t *out, const pthread_attr_t *attributes, void *(*run)(void *), void *payload);
int __wrap_pthread_join(pthread_t thread, void **result);
int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex);
int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex);
int __wrap_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *until);
int __wrap_pthread_cond_signal(pthread_cond_t *condition);
int __wrap_pthread_cond_broadcast(pthread_cond_t *condition);

ssize_t __real_read(int fd, void *out, size_t count);
ssize_t __real_write(int fd, const void *bytes, size_t count);
int __real_close(int fd);
int __real_fstat(int fd, struct stat *out);
int __real_clock_gettime(clockid_t id, struct timespec *out);

#endif
