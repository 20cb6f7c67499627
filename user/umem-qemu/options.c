// SPDX-License-Identifier: GPL-2.0-or-later
#include "umem-qemu/options.h"

#include <ctype.h>
#include <errno.h>
#include <linux/umem.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"
#include "common/uri.h"
#include "common/util.h"
#include "umem-qemu/keyval.h"

#define MIB		(1ULL << 20)
#define HUGE_PAGE	(2 * MIB)
#define DEFAULT_MEMORY	(128 * MIB)
#define SOCKET_PATH_MAX	107
#define QEMU_RAM_ALIGN	8192ULL	/* QEMU rounds -m up to this */

/* One argument of QEMU's: as it came, or a region whose descriptor is not known yet. */
struct option_argument {
	char *text;
	struct keyval backend;
	int region;		/* index of the region, -1: plain text */
};

/* What is only known when the whole command line was seen. */
struct parser {
	struct options *options;
	char **error;
	char *machine_type;
	char *memory_backend;
	bool memory_given;
	uint64_t memory;
	bool numa_memdev;
	bool nographic;
	bool serial;
	bool nodefaults;
	bool stdio_monitor;
	bool other_accelerator;
};

static int refuse(struct parser *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int refuse(struct parser *p, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	*p->error = text_vformat(format, args);
	va_end(args);
	return -EINVAL;
}

static struct option_argument *add_argument(struct parser *p)
{
	struct options *options = p->options;

	options->arguments = memory_or_exit(reallocarray(options->arguments,
							 options->nr_arguments + 1,
							 sizeof(*options->arguments)));
	return &options->arguments[options->nr_arguments++];
}

static void pass(struct parser *p, const char *text)
{
	*add_argument(p) = (struct option_argument){ .text = text_copy(text), .region = -1 };
}

static void pass_option(struct parser *p, const char *name, const char *value)
{
	char *option = text_format("-%s", name);

	pass(p, option);
	if (value)
		pass(p, value);
	free(option);
}

static void replace(char **string, char *with)
{
	free(*string);
	*string = with;
}

static bool one_of(const char *word, const char *const *words)
{
	for (; *words; words++) {
		if (!strcmp(word, *words))
			return true;
	}
	return false;
}

/* ---- regions ---- */

static bool is_id(const char *name)
{
	if (!isalpha((unsigned char)*name))
		return false;
	for (; *name; name++) {
		if (!isalnum((unsigned char)*name) && !strchr("-._", *name))
			return false;
	}
	return true;
}

/* Takes over @backend; on failure too. */
static int add_region(struct parser *p, const char *name, uint64_t length, struct keyval *backend)
{
	struct options *options = p->options;

	for (size_t i = 0; i < options->nr_regions; i++) {
		if (!strcmp(options->regions[i].name, name))
			return refuse(p, "two memory backends have the id \"%s\", each wants its own",
				      name);
	}
	if (options->nr_regions == OPTIONS_REGIONS_MAX)
		return refuse(p, "memory backend \"%s\" is number %d, at most %d are possible",
			      name, OPTIONS_REGIONS_MAX + 1, OPTIONS_REGIONS_MAX);

	/* QEMU maps a file at any page: 2 MiB of a huge folio are mapped as one only like this. */
	if (!keyval_get(backend, "align"))
		keyval_set_number(backend, "align", HUGE_PAGE);
	pass(p, "-object");
	*add_argument(p) = (struct option_argument){
		.backend = *backend,
		.region = (int)options->nr_regions,
	};
	*backend = (struct keyval){ 0 };
	options->regions[options->nr_regions++] = (struct region_option){
		.name = text_copy(name),
		.length = length,
	};
	return 0;
}

/* Properties by which memory cannot be what a region is: shared, 4 KiB pages, of umem. */
static int check_backend(struct parser *p, const char *text, const char *type,
			 struct keyval *backend)
{
	static const struct {
		const char *key;
		int want;
		const char *why;
	} wanted[] = {
		{ "share", 1, "umem wants share=on: guest and pager share the memory" },
		{ "hugetlb", 0, "umem wants hugetlb=off: its regions are not hugetlbfs memory" },
		{ "pmem", 0, "umem wants pmem=off: its regions do not persist" },
		{ "readonly", 0, "umem wants readonly=off: the guest's memory is written" },
	};
	const char *value;

	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
		value = keyval_get(backend, wanted[i].key);
		if (value && keyval_parse_bool(value) != wanted[i].want)
			return refuse(p, "-object %s: %s is \"%s\", %s",
				      text, wanted[i].key, value, wanted[i].why);
	}
	value = keyval_get(backend, "hugetlbsize");
	if (value)
		return refuse(p, "-object %s: hugetlbsize is \"%s\", umem wants none: its regions are not hugetlbfs memory",
			      text, value);
	value = keyval_get(backend, "mem-path");
	if (!strcmp(type, "memory-backend-file") && !value)
		return refuse(p, "-object %s: there is no mem-path, umem wants mem-path=/dev/umem or memory-backend-ram",
			      text);
	if (value && strcmp(value, "/dev/umem"))
		return refuse(p, "-object %s: mem-path is \"%s\", umem wants mem-path=/dev/umem or memory-backend-ram",
			      text, value);
	return 0;
}

static int backend_length(struct parser *p, const char *text, struct keyval *backend,
			  uint64_t *length)
{
	const char *value = keyval_get(backend, "size");

	if (!value)
		return refuse(p, "-object %s: there is no size, umem wants one such as size=1G", text);
	if (keyval_parse_size(value, 1, length))
		return refuse(p, "-object %s: size is \"%s\", wanted a number of bytes or one with K, M, G or T",
			      text, value);
	if (!*length || *length % UMEM_PAGE_SIZE)
		return refuse(p, "-object %s: size is %llu bytes, umem wants a multiple of %lu above 0",
			      text, (unsigned long long)*length, UMEM_PAGE_SIZE);
	return 0;
}

static int take_backend(struct parser *p, const char *text, struct keyval *backend)
{
	static const char *const kinds[] = {
		"memory-backend-ram", "memory-backend-file",
		"memory-backend-memfd", "memory-backend-shm", NULL,
	};
	char *type = text_copy(keyval_get(backend, "qom-type"));
	char *id = NULL;
	uint64_t length = 0;
	int err = -EINVAL;

	if (!one_of(type, kinds)) {
		refuse(p, "-object %s: the type is %s, umem wants memory-backend-ram: it gives the guest regions of its own",
		       text, type);
		goto free;
	}
	id = text_copy(keyval_get(backend, "id") ? keyval_get(backend, "id") : "");
	if (!is_id(id) || strlen(id) >= UMEM_NAME_MAX) {
		refuse(p, "-object %s: id is \"%s\", wanted a letter, then letters, digits, '-', '.', '_', at most %d in all",
		       text, id, UMEM_NAME_MAX - 1);
		goto free;
	}
	err = check_backend(p, text, type, backend);
	if (!err)
		err = backend_length(p, text, backend, &length);
	if (err)
		goto free;

	keyval_set(backend, "qom-type", "memory-backend-file");
	keyval_remove(backend, "hugetlb");
	keyval_remove(backend, "seal");
	keyval_remove(backend, "mem-path");
	keyval_set_bool(backend, "share", true);
	err = add_region(p, id, length, backend);
free:
	free(type);
	free(id);
	return err;
}

/* Stock QEMU names main memory by the machine: so do we, that names are the same everywhere. */
static const char *main_region_name(const struct parser *p)
{
	if (p->machine_type && !strcmp(p->machine_type, "microvm"))
		return "microvm.ram";
	if (p->machine_type && !strcmp(p->machine_type, "none"))
		return "ram";
	return "pc.ram";
}

static int add_main_region(struct parser *p)
{
	const char *name = main_region_name(p);
	struct keyval backend;
	char *text, *machine;
	int err;

	if (p->memory_backend || p->numa_memdev)
		return 0;
	if (!p->memory_given && !strcmp(name, "ram"))
		return 0;

	text = text_format("memory-backend-file,id=%s,size=%llu,share=on", name,
			   (unsigned long long)p->memory);
	keyval_parse(&backend, text, "qom-type", p->error);
	err = add_region(p, name, p->memory, &backend);
	keyval_destroy(&backend);
	free(text);
	if (err)
		return err;
	machine = text_format("memory-backend=%s", name);
	pass_option(p, "machine", machine);
	free(machine);
	return 0;
}

/* ---- options, one function each ---- */

static int take_object(struct parser *p, const char *name, const char *value)
{
	struct keyval backend;
	const char *type;
	char *why = NULL;
	int err = 0;

	if (keyval_parse(&backend, value, "qom-type", &why)) {
		err = refuse(p, "-object: %s", why);
		free(why);
		return err;
	}
	type = keyval_get(&backend, "qom-type");
	if (type && !strncmp(type, "memory-backend-", strlen("memory-backend-")))
		err = take_backend(p, value, &backend);
	else
		pass_option(p, name, value);
	keyval_destroy(&backend);
	return err;
}

static int take_memory(struct parser *p, const char *name, const char *value)
{
	struct keyval memory;
	const char *size;
	uint64_t bytes;
	char *why = NULL;
	int err = 0;

	if (keyval_parse(&memory, value, "size", &why)) {
		err = refuse(p, "-m: %s", why);
		free(why);
		return err;
	}
	size = keyval_get(&memory, "size");
	if (size && keyval_parse_size(size, MIB, &bytes)) {
		err = refuse(p, "-m %s: the size is \"%s\", wanted MiB or a number with K, M, G or T",
			     value, size);
	} else if (size && bytes > INT64_MAX) {
		err = refuse(p, "-m %s: the size is %llu bytes, at most %lld are possible",
			     value, (unsigned long long)bytes, (long long)INT64_MAX);
	} else if (size && bytes) {
		p->memory = (bytes + QEMU_RAM_ALIGN - 1) / QEMU_RAM_ALIGN * QEMU_RAM_ALIGN;
		p->memory_given = true;
	}
	keyval_destroy(&memory);
	if (!err)
		pass_option(p, name, value);
	return err;
}

static int refuse_mem_path(struct parser *p, const char *name, const char *value)
{
	return refuse(p, "-%s %s: the guest's memory would be a file there, umem wants no -%s: it is in regions of /dev/umem",
		      name, value, name);
}

static void note_accelerators(struct parser *p, const char *option, const char *value,
			      const char *list)
{
	for (const char *c = list; *c;) {
		size_t length = strcspn(c, ":");

		if (length == 3 && !strncmp(c, "kvm", 3))
			replace(&p->options->kvm, text_format("-%s %s", option, value));
		else
			p->other_accelerator = true;
		c += length;
		c += *c == ':';
	}
}

static int take_machine(struct parser *p, const char *name, const char *value)
{
	struct keyval machine;
	const char *word;
	char *why = NULL;

	if (keyval_parse(&machine, value, "type", &why)) {
		refuse(p, "-%s: %s", name, why);
		free(why);
		return -EINVAL;
	}
	word = keyval_get(&machine, "type");
	if (word)
		replace(&p->machine_type, text_copy(word));
	word = keyval_get(&machine, "memory-backend");
	if (word)
		replace(&p->memory_backend, text_copy(word));
	word = keyval_get(&machine, "accel");
	if (word)
		note_accelerators(p, name, value, word);
	keyval_destroy(&machine);
	pass_option(p, name, value);
	return 0;
}

static int take_accel(struct parser *p, const char *name, const char *value)
{
	struct keyval accel;
	const char *word;
	char *why = NULL;

	if (keyval_parse(&accel, value, "accel", &why)) {
		refuse(p, "-accel: %s", why);
		free(why);
		return -EINVAL;
	}
	word = keyval_get(&accel, "accel");
	if (word)
		note_accelerators(p, name, value, word);
	keyval_destroy(&accel);
	pass_option(p, name, value);
	return 0;
}

static int take_enable_kvm(struct parser *p, const char *name, const char *value)
{
	(void)value;
	replace(&p->options->kvm, text_format("-%s", name));
	pass_option(p, name, NULL);
	return 0;
}

static int take_numa(struct parser *p, const char *name, const char *value)
{
	struct keyval numa;
	char *why = NULL;

	if (keyval_parse(&numa, value, "type", &why)) {
		refuse(p, "-numa: %s", why);
		free(why);
		return -EINVAL;
	}
	if (keyval_get(&numa, "memdev"))
		p->numa_memdev = true;
	keyval_destroy(&numa);
	pass_option(p, name, value);
	return 0;
}

static int take_incoming(struct parser *p, const char *name, const char *value)
{
	(void)name;
	replace(&p->options->incoming, text_copy(value));
	return 0;
}

static int take_paused(struct parser *p, const char *name, const char *value)
{
	(void)name;
	(void)value;
	p->options->paused = true;
	return 0;
}

static int take_postcopy(struct parser *p, const char *name, const char *value)
{
	(void)name;
	(void)value;
	p->options->postcopy = true;
	return 0;
}

static int take_postcopy_flags(struct parser *p, const char *name, const char *value)
{
	char *end;
	unsigned long flags;

	errno = 0;
	flags = strtoul(value, &end, 0);
	if (!isdigit((unsigned char)*value) || *end || errno || flags > OPTIONS_FLAG_TOUCH)
		return refuse(p, "-%s is \"%s\", wanted 0, or 1 to touch each page after it was published",
			      name, value);
	p->options->postcopy_flags = (unsigned int)flags;
	return 0;
}

static int add_monitor(struct parser *p, enum monitor_kind kind, const char *path, bool wait)
{
	struct options *options = p->options;

	if (options->nr_monitors == OPTIONS_MONITORS_MAX)
		return refuse(p, "-monitor was given %d times, at most %d are possible",
			      OPTIONS_MONITORS_MAX + 1, OPTIONS_MONITORS_MAX);
	options->monitors[options->nr_monitors++] = (struct monitor_option){
		.kind = kind,
		.path = path ? text_copy(path) : NULL,
		.wait = wait,
	};
	return 0;
}

static int take_unix_monitor(struct parser *p, const char *value)
{
	struct keyval monitor;
	const char *path, *server, *wait;
	char *why = NULL;
	int err;

	keyval_parse(&monitor, value + strlen("unix:"), "path", &why);
	path = keyval_get(&monitor, "path");
	server = keyval_get(&monitor, "server");
	wait = keyval_get(&monitor, "wait");
	if (!path || !*path)
		err = refuse(p, "-monitor %s: there is no path, wanted unix:PATH,server=on,wait=off",
			     value);
	else if (strlen(path) > SOCKET_PATH_MAX)
		err = refuse(p, "-monitor %s: the path has %zu characters, a socket's has at most %d",
			     value, strlen(path), SOCKET_PATH_MAX);
	else if (!server || keyval_parse_bool(server) != 1)
		err = refuse(p, "-monitor %s: server is \"%s\", umem-qemu wants unix:PATH,server=on,wait=off",
			     value, server ? server : "off");
	else if (wait && keyval_parse_bool(wait) < 0)
		err = refuse(p, "-monitor %s: wait is \"%s\", wanted on or off", value, wait);
	else
		err = add_monitor(p, MONITOR_UNIX, path, !wait || keyval_parse_bool(wait));
	keyval_destroy(&monitor);
	return err;
}

static int take_monitor(struct parser *p, const char *name, const char *value)
{
	if (!strcmp(value, "stdio")) {
		if (p->stdio_monitor)
			return refuse(p, "-monitor stdio was given twice, there is one standard input");
		p->stdio_monitor = true;
		return add_monitor(p, MONITOR_STDIO, NULL, false);
	}
	if (!strncmp(value, "unix:", strlen("unix:")))
		return take_unix_monitor(p, value);
	if (strcmp(value, "none"))
		replace(&p->options->foreign_monitor, text_copy(value));
	pass_option(p, name, value);
	return 0;
}

static void note_stdio(struct parser *p, const char *name, const char *value)
{
	const char *device = value;

	if (!strncmp(device, "mon:", 4))
		device += 4;
	if (!strcmp(device, "stdio") || !strncmp(device, "stdio,", 6))
		replace(&p->options->stdio_user, text_format("-%s %s", name, value));
}

static int take_device(struct parser *p, const char *name, const char *value)
{
	note_stdio(p, name, value);
	if (!strcmp(name, "serial"))
		p->serial = true;
	pass_option(p, name, value);
	return 0;
}

static int take_display(struct parser *p, const char *name, const char *value)
{
	if (!strcmp(value, "curses") || !strncmp(value, "curses,", 7))
		replace(&p->options->stdio_user, text_format("-%s %s", name, value));
	pass_option(p, name, value);
	return 0;
}

static int take_chardev(struct parser *p, const char *name, const char *value)
{
	struct keyval chardev;
	const char *id;
	char *why = NULL;
	int err = 0;

	note_stdio(p, name, value);
	if (!keyval_parse(&chardev, value, "backend", &why)) {
		id = keyval_get(&chardev, "id");
		if (id && !strcmp(id, OPTIONS_QMP_ID))
			err = refuse(p, "-chardev %s: the id \"%s\" is umem-qemu's own, take another",
				     value, id);
		keyval_destroy(&chardev);
	}
	free(why);
	if (!err)
		pass_option(p, name, value);
	return err;
}

static int take_nographic(struct parser *p, const char *name, const char *value)
{
	(void)value;
	p->nographic = true;
	pass_option(p, name, NULL);
	return 0;
}

static int take_nodefaults(struct parser *p, const char *name, const char *value)
{
	(void)value;
	p->nodefaults = true;
	pass_option(p, name, NULL);
	return 0;
}

static int refuse_daemonize(struct parser *p, const char *name, const char *value)
{
	(void)value;
	return refuse(p, "-%s: QEMU would leave umem-qemu, which has to look after it; run umem-qemu itself in the background (systemd-run, setsid, &)",
		      name);
}

static int take_readconfig(struct parser *p, const char *name, const char *value)
{
	struct options *options = p->options;

	if (options->nr_configs == OPTIONS_CONFIGS_MAX)
		return refuse(p, "-%s was given %d times, at most %d are possible", name,
			      OPTIONS_CONFIGS_MAX + 1, OPTIONS_CONFIGS_MAX);
	options->configs[options->nr_configs++] = text_copy(value);
	pass_option(p, name, value);
	return 0;
}

static int take_qemu(struct parser *p, const char *name, const char *value)
{
	(void)name;
	replace(&p->options->qemu, text_copy(value));
	return 0;
}

static int take_umemd(struct parser *p, const char *name, const char *value)
{
	(void)name;
	replace(&p->options->umemd, text_copy(value));
	return 0;
}

static int take_help(struct parser *p, const char *name, const char *value)
{
	(void)name;
	(void)value;
	p->options->help = true;
	return 0;
}

static int take_version(struct parser *p, const char *name, const char *value)
{
	(void)name;
	(void)value;
	p->options->version = true;
	return 0;
}

static int take_name(struct parser *p, const char *name, const char *value)
{
	struct keyval keyval;
	const char *guest;
	char *why = NULL;

	if (!keyval_parse(&keyval, value, "guest", &why)) {
		guest = keyval_get(&keyval, "guest");
		if (guest)
			replace(&p->options->name, text_copy(guest));
		keyval_destroy(&keyval);
	}
	free(why);
	pass_option(p, name, value);
	return 0;
}

static int take_control(struct parser *p, const char *name, const char *value)
{
	if (!*value || strlen(value) > SOCKET_PATH_MAX)
		return refuse(p, "-%s is \"%s\" with %zu characters, wanted none, or a path of 1 to %d",
			      name, value, strlen(value), SOCKET_PATH_MAX);
	p->options->no_control = !strcmp(value, "none");
	replace(&p->options->control, p->options->no_control ? NULL : text_copy(value));
	return 0;
}

static int take_adopt(struct parser *p, const char *name, const char *value)
{
	if (!*value)
		return refuse(p, "--%s is \"\", wanted the process id of a umem-qemu, the -name of its guest, or the path of its record",
			      name);
	replace(&p->options->adopt, text_copy(value));
	return 0;
}

struct option_rule {
	const char *name;
	bool argument;
	int (*take)(struct parser *p, const char *name, const char *value);
};

static const struct option_rule rules[] = {
	{ "qemu", true, take_qemu },
	{ "umemd", true, take_umemd },
	{ "postcopy", false, take_postcopy },
	{ "postcopy-flags", true, take_postcopy_flags },
	{ "control", true, take_control },
	{ "adopt", true, take_adopt },
	{ "name", true, take_name },
	{ "h", false, take_help },
	{ "help", false, take_help },
	{ "version", false, take_version },
	{ "m", true, take_memory },
	{ "object", true, take_object },
	{ "mem-path", true, refuse_mem_path },
	{ "machine", true, take_machine },
	{ "M", true, take_machine },
	{ "accel", true, take_accel },
	{ "enable-kvm", false, take_enable_kvm },
	{ "numa", true, take_numa },
	{ "incoming", true, take_incoming },
	{ "S", false, take_paused },
	{ "monitor", true, take_monitor },
	{ "serial", true, take_device },
	{ "parallel", true, take_device },
	{ "debugcon", true, take_device },
	{ "qmp", true, take_device },
	{ "qmp-pretty", true, take_device },
	{ "gdb", true, take_device },
	{ "chardev", true, take_chardev },
	{ "display", true, take_display },
	{ "nographic", false, take_nographic },
	{ "nodefaults", false, take_nodefaults },
	{ "daemonize", false, refuse_daemonize },
	{ "readconfig", true, take_readconfig },
};

/* Options of QEMU 6 to 10 that stand alone; every other one has an argument. */
static const char *const bare_options[] = {
	"alt-grab", "async-teardown", "audio-help", "ctrl-grab", "curses", "enable-fips",
	"enable-sync-profile", "full-screen", "jitdump", "mem-prealloc", "no-acpi",
	"no-fd-bootchk", "no-frame", "no-hpet", "no-kvm", "no-quit", "no-reboot", "no-shutdown",
	"no-user-config", "nouserconfig", "old-param", "only-migratable", "perfmap", "portrait",
	"preconfig", "s", "sdl", "semihosting", "show-cursor", "singlestep", "snapshot", "usb",
	"win2k-hack", "xen-attach", "xen-create", "xen-domid-restrict", NULL,
};

static const struct option_rule *find_rule(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		if (!strcmp(rules[i].name, name))
			return &rules[i];
	}
	return NULL;
}

/* "-cpu help" prints a list and starts no guest: it shall work without umem, too. */
static bool asks_for_list(const char *name, const char *value)
{
	static const char *const options[] = {
		"M", "accel", "audiodev", "chardev", "cpu", "d", "device", "display", "machine",
		"net", "netdev", "nic", "object", "tpmdev", "trace", "vga", NULL,
	};
	const char *last = strrchr(value, ',');

	last = last ? last + 1 : value;
	return one_of(name, options) && (!strcmp(last, "help") || !strcmp(last, "?"));
}

static int parse_option(struct parser *p, char **argv, int argc, int *i)
{
	const char *name = argv[*i] + (argv[*i][1] == '-' ? 2 : 1);
	const struct option_rule *rule = find_rule(name);
	const char *value = NULL;

	if (rule ? rule->argument : !one_of(name, bare_options)) {
		if (*i + 1 >= argc) {
			if (!rule) {	/* QEMU knows best what it is */
				pass_option(p, name, NULL);
				return 0;
			}
			return refuse(p, "-%s wants an argument, nothing follows it", name);
		}
		value = argv[++*i];
		if (asks_for_list(name, value))
			p->options->lists = true;
	}
	if (rule)
		return rule->take(p, name, value);
	pass_option(p, name, value);
	return 0;
}

static int check_postcopy(struct parser *p)
{
	struct options *options = p->options;
	char error[URI_ERROR_MAX];
	struct uri uri;

	if (!options->postcopy) {
		if (options->postcopy_flags)
			return refuse(p, "-postcopy-flags is %u without -postcopy, wanted -postcopy -incoming URI with it",
				      options->postcopy_flags);
		return 0;
	}
	if (!options->incoming)
		return refuse(p, "-postcopy was given without -incoming, wanted -postcopy -incoming URI with " URI_WANTED);
	if (uri_parse(&uri, options->incoming, error, sizeof(error)))
		return refuse(p, "-incoming: %s", error);
	if (!uri_names_peer(&uri) && uri.kind != URI_DEFER)
		return refuse(p, "-incoming is \"%s\", with -postcopy " URI_WANTED " or defer is wanted",
			      options->incoming);
	return 0;
}

static int check_stdio(struct parser *p)
{
	struct options *options = p->options;

	if (p->nographic && !p->serial && !p->nodefaults && !options->stdio_user)
		options->stdio_user = text_copy("-nographic (its serial port)");
	if (p->stdio_monitor && options->stdio_user)
		return refuse(p, "-monitor stdio and %s both want standard input; give one of them another place, such as -monitor unix:PATH,server=on,wait=off or -serial none",
			      options->stdio_user);
	return 0;
}

static void pass_the_rest(struct parser *p)
{
	struct options *options = p->options;

	if (options->postcopy)
		pass_option(p, "incoming", "defer");
	else if (options->incoming)
		pass_option(p, "incoming", options->incoming);
	if (options->paused || options->postcopy)
		pass_option(p, "S", NULL);
	if (options->nr_monitors && !options->foreign_monitor)
		pass_option(p, "monitor", "none");
}

static int finish(struct parser *p)
{
	int err;

	if (p->other_accelerator)
		replace(&p->options->kvm, NULL);
	err = check_postcopy(p);
	if (!err)
		err = check_stdio(p);
	if (!err && !p->options->lists)
		err = add_main_region(p);
	if (!err)
		pass_the_rest(p);
	return err;
}

/* QEMU runs already. */
static int check_adopt(struct parser *p)
{
	struct options *options = p->options;

	if (options->qemu || options->postcopy || options->incoming || options->name)
		return refuse(p, "--adopt %s: --qemu, -postcopy, -incoming and -name are for a QEMU that is to be started, wanted only -monitor, -control and --umemd with it",
			      options->adopt);
	if (options->nr_arguments || options->nr_regions)
		return refuse(p, "--adopt %s: \"%s\" is for a QEMU that is to be started, wanted only -monitor, -control and --umemd with it",
			      options->adopt, options->nr_arguments ? options->arguments[0].text : "-m");
	return 0;
}

int options_parse(struct options *options, int argc, char **argv, char **error)
{
	struct parser parser = { .options = options, .error = error, .memory = DEFAULT_MEMORY };
	int err = 0;

	*options = (struct options){ 0 };
	*error = NULL;
	for (int i = 1; i < argc && !err; i++) {
		if (argv[i][0] == '-' && argv[i][1])
			err = parse_option(&parser, argv, argc, &i);
		else
			pass(&parser, argv[i]);
	}
	if (!err && !options->help && !options->version)
		err = options->adopt ? check_adopt(&parser) : finish(&parser);
	free(parser.machine_type);
	free(parser.memory_backend);
	return err;
}

void options_destroy(struct options *options)
{
	free(options->qemu);
	free(options->umemd);
	free(options->incoming);
	free(options->kvm);
	free(options->stdio_user);
	free(options->foreign_monitor);
	free(options->name);
	free(options->control);
	free(options->adopt);
	for (size_t i = 0; i < options->nr_regions; i++)
		free(options->regions[i].name);
	for (size_t i = 0; i < options->nr_monitors; i++)
		free(options->monitors[i].path);
	for (size_t i = 0; i < options->nr_configs; i++)
		free(options->configs[i]);
	for (size_t i = 0; i < options->nr_arguments; i++) {
		free(options->arguments[i].text);
		keyval_destroy(&options->arguments[i].backend);
	}
	free(options->arguments);
	*options = (struct options){ 0 };
}

static char *backend_argument(struct option_argument *argument, int fd)
{
	char *path = text_format("/proc/self/fd/%d", fd);
	char *text;

	keyval_set(&argument->backend, "mem-path", path);
	text = keyval_format(&argument->backend);
	free(path);
	return text;
}

char **options_qemu_argv(const struct options *options, const char *program,
			 const int *region_fds, int qmp_fd, bool qmp_listens)
{
	char **argv = memory_or_exit(calloc(options->nr_arguments + 6, sizeof(*argv)));
	size_t nr = 0;

	argv[nr++] = text_copy(program);
	for (size_t i = 0; i < options->nr_arguments; i++) {
		struct option_argument *argument = &options->arguments[i];

		argv[nr++] = argument->region < 0 ? text_copy(argument->text) :
			     backend_argument(argument, region_fds[argument->region]);
	}
	if (qmp_fd >= 0) {
		argv[nr++] = text_copy("-chardev");
		argv[nr++] = text_format("socket,id=" OPTIONS_QMP_ID ",fd=%d%s", qmp_fd,
					 qmp_listens ? ",server=on,wait=off" : "");
		argv[nr++] = text_copy("-mon");
		argv[nr++] = text_copy("chardev=" OPTIONS_QMP_ID ",mode=control");
	}
	return argv;
}

void options_free_argv(char **argv)
{
	for (size_t i = 0; argv[i]; i++)
		free(argv[i]);
	free(argv);
}

static bool describes_memory(const char *group, const char *line)
{
	if (!strncmp(group, "memory", 6))
		return !strncmp(line, "size", 4);
	if (!strncmp(group, "object", 6))
		return !strncmp(line, "qom-type", 8) && strstr(line, "memory-backend-");
	return !strncmp(group, "machine", 7) && !strncmp(line, "memory-backend", 14);
}

int options_check_config(const char *path, const char *text, char **error)
{
	char *copy = text_copy(text), *rest = copy, *line;
	const char *group = "";
	int number = 0, err = 0;

	while (!err && (line = strsep(&rest, "\n"))) {
		number++;
		line += strspn(line, " \t");
		if (*line == '[') {
			group = line + 1;
		} else if (describes_memory(group, line)) {
			*error = text_format("-readconfig %s: line %d is \"%s\" in [%.*s]; umem wants memory on the command line (-m, -object, -machine): it makes regions of it",
					     path, number, line, (int)strcspn(group, "]"), group);
			err = -EINVAL;
		}
	}
	free(copy);
	return err;
}

const char *options_help(void)
{
	return
"usage: umem-qemu [--qemu PATH] [--umemd PATH] [-postcopy] [-postcopy-flags N] [QEMU options...]\n"
"\n"
"Starts QEMU with the guest's memory in regions of /dev/umem, so that the guest can\n"
"move to another host at once and its memory can follow on demand.\n"
"\n"
"  --qemu PATH        the QEMU to start (default: qemu-system-x86_64 from PATH)\n"
"  --umemd PATH       the pager to start (default: beside umem-qemu, then in\n"
"                     ../libexec, then from PATH)\n"
"  -postcopy          with -incoming URI: wait for a guest that another\n"
"                     umem-qemu sends; with -incoming defer: after the monitor\n"
"                     command migrate_incoming URI\n"
"  -postcopy-flags N  0 (default); 1: touch each page in the guest's address space\n"
"                     after it was published\n"
"  -control PATH      the socket at which umemctl gives commands; -control none: there is\n"
"                     none. Default: umem-qemu-PID.sock in $XDG_RUNTIME_DIR, else in\n"
"                     /run/umem for root, else in /tmp/umem-UID\n"
"  --adopt GUEST      start no QEMU, take over that of a umem-qemu that has ended: its process\n"
"                     id, the -name of its guest, or the path of its record. A migration\n"
"                     that was under way goes on, or before the hand-over is undone. With\n"
"                     it only -monitor, -control and --umemd are possible\n"
"  --help, --version\n"
"\n"
"All other options are QEMU's. -m and every memory-backend-ram, -memfd and -file object\n"
"become regions; memory that cannot be shared is refused. Without -postcopy, -incoming is\n"
"QEMU's own.\n"
"\n"
"-monitor stdio and -monitor unix:PATH,server=on[,wait=off] are served by umem-qemu. They\n"
"are QEMU's monitor and know in addition:\n"
"\n"
"  migrate [-d] [-p [-n]] [-m] URI [FORWARD [BACKWARD]]\n"
"                     with capability postcopy-ram: copy memory while the guest runs\n"
"                     here, then move the guest, the rest of its memory follows\n"
"      -d             the prompt returns at once\n"
"      -p             move the guest at once, all of its memory follows\n"
"      -n             send only pages that are asked for and their prefault\n"
"      -m             the background goes on from where the guest last asked\n"
"      FORWARD        pages after each requested page that are sent with it\n"
"      BACKWARD       pages before it\n"
"  migrate_start_postcopy\n"
"                     move the guest now, however much of it is not copied\n"
"  migrate_cancel     before the hand-over: the guest stays where it is\n"
"  migrate_pause, migrate_recover [URI]\n"
"                     after it: nothing is sent or brought; go on, at URI if given\n"
"  migrate_give_up    where the guest has come to: its source is lost, pages that are missing\n"
"                     raise machine checks, and the guest goes on\n"
"  info migrate       how it stands\n"
"\n"
"migrate without -p is QEMU's own migration unless its capability postcopy-ram is on.\n"
"\n"
"A URI is " URI_WANTED ".\n"
"\n"
"Example, destination and source:\n"
"  umem-qemu -accel kvm -m 4G ... -postcopy -incoming tcp:0:4444\n"
"  umem-qemu -accel kvm -m 4G ... -monitor stdio\n"
"  (qemu) migrate -p tcp:destination:4444 32 0\n";
}
