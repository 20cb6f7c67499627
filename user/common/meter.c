// SPDX-License-Identifier: GPL-2.0-or-later
#include "common/meter.h"

#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/text.h"
#include "common/util.h"

#define BAR		"##########"
#define BAR_GAP		".........."
#define BAR_WIDTH	10
#define BAR_COLUMNS	(BAR_WIDTH + 3)	/* with its brackets and a blank */
#define USUAL_COLUMNS	80
#define CLEAR_LINE	"\r\033[K"

void meter_begin(struct meter *meter, unsigned int columns, uint64_t now_ns)
{
	*meter = (struct meter){ .columns = columns, .last_ns = now_ns };
}

char *meter_draw(struct meter *meter, unsigned int percent, const char *text, uint64_t now_ns)
{
	int filled = (int)(min(percent, 100u) * BAR_WIDTH / 100);
	unsigned int room = meter->columns > BAR_COLUMNS ? meter->columns - BAR_COLUMNS - 1 : 0;

	if (meter->columns) {
		/* A line that wraps could not be taken back. */
		meter->shown = true;
		return text_format(CLEAR_LINE "[%.*s%.*s] %.*s", filled, BAR,
				   BAR_WIDTH - filled, BAR_GAP, (int)min(room, 200u), text);
	}
	if (now_ns - meter->last_ns < NSEC_PER_SEC)
		return NULL;
	meter->last_ns = now_ns;
	return text_format("%s\n", text);
}

const char *meter_clear(struct meter *meter)
{
	bool shown = meter->shown;

	meter->shown = false;
	return shown ? CLEAR_LINE : "";
}

unsigned int meter_columns(int fd)
{
	struct winsize size;

	if (!isatty(fd))
		return 0;
	return !ioctl(fd, TIOCGWINSZ, &size) && size.ws_col ? size.ws_col : USUAL_COLUMNS;
}
