/* The version of the program, as people say it. The build is told apart by its commit and by the engine's build hash. */
#ifndef SERVER_VERSION_H
#define SERVER_VERSION_H

#define DN_VERSION "0.1.0"

#endif
