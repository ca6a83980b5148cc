// SPDX-License-Identifier: Apache-2.0
//
// What is put back when a signal ends the process.
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>

#include "internal.h"

static char file[256], text[64], directory[256];

static void clean_up(int number)
{
	if (file[0]) {
		int descriptor = open(file, O_WRONLY | O_CLOEXEC);

		if (descriptor >= 0 && write(descriptor, text, strlen(text)) < 0)
			descriptor = -1;
	}
	if (directory[0])
		rmdir(directory);
	signal(number, SIG_DFL);
	raise(number);
}

static void await_signals(void)
{
	/* It is let through again when the handler returns, and then ends the process. */
	signal(SIGINT, clean_up);
	signal(SIGTERM, clean_up);
	signal(SIGHUP, clean_up);
}

void cbench_write_at_signal(const char *path, const char *what)
{
	snprintf(text, sizeof(text), "%s", what);
	snprintf(file, sizeof(file), "%s", path);
	await_signals();
}

void cbench_remove_at_signal(const char *path)
{
	snprintf(directory, sizeof(directory), "%s", path);
	await_signals();
}

void forget_cleanup(void)
{
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	signal(SIGHUP, SIG_DFL);
}
