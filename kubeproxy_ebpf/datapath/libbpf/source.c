/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What the binding needs and libbpf does not have: atomic publication, a grace period, and
 * answers that would need unions or bit fields in Python.  Functions return 0 or -errno.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>
#include <linux/membarrier.h>

#if LIBBPF_MAJOR_VERSION < 1 || (LIBBPF_MAJOR_VERSION == 1 && LIBBPF_MINOR_VERSION < 1)
#error "libbpf 1.1 or newer is needed"
#endif

/* enum bpf_link_type since 6.6; what is said of it begins as of XDP's links, which older headers know. */
enum { LINK_TYPE_TCX = 11 };

struct link_description {
	uint32_t type, id, prog_id, attach_type, interface;
	uint64_t cgroup_id;
};

/* Defined by cffi further down in the generated file. */
static void message_received(int level, char *text);

/* Everything stored before is visible to whoever reads the new word. base + offset is a multiple of 8. */
static void store_release_u64(void *base, size_t offset, uint64_t word)
{
	__atomic_store_n((uint64_t *)((char *)base + offset), word, __ATOMIC_RELEASE);
}

/* Returns when every CPU has left the RCU read sections it was in, BPF programs among them. */
static int membarrier_global(void)
{
	return syscall(__NR_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) ? -errno : 0;
}

static int filesystem_magic(const char *path, uint64_t *magic)
{
	struct statfs answer;

	if (statfs(path, &answer))
		return -errno;
	*magic = (uint64_t)answer.f_type;
	return 0;
}

static int link_describe(int link_fd, struct link_description *description)
{
	struct bpf_link_info info = {};
	__u32 size = sizeof(info);
	int error = bpf_obj_get_info_by_fd(link_fd, &info, &size);

	if (error)
		return error;
	memset(description, 0, sizeof(*description));
	description->type = info.type;
	description->id = info.id;
	description->prog_id = info.prog_id;
	if (info.type == BPF_LINK_TYPE_CGROUP) {
		description->attach_type = info.cgroup.attach_type;
		description->cgroup_id = info.cgroup.cgroup_id;
	} else if (info.type == LINK_TYPE_TCX) {
		description->interface = info.xdp.ifindex;
	}
	return 0;
}

/* Finds a `const volatile` global by name: its place within .rodata. */
static int constant_find(const struct bpf_object *obj, const char *name, uint32_t *offset, uint32_t *size)
{
	const struct btf *btf = bpf_object__btf(obj);
	const struct btf_var_secinfo *variables;
	const struct btf_type *section;
	int id;

	if (!btf)
		return -ENOENT;
	id = btf__find_by_name_kind(btf, ".rodata", BTF_KIND_DATASEC);
	if (id < 0)
		return id;
	section = btf__type_by_id(btf, id);
	variables = btf_var_secinfos(section);
	for (int i = 0; i < btf_vlen(section); i++) {
		const struct btf_type *variable = btf__type_by_id(btf, variables[i].type);

		if (strcmp(btf__name_by_offset(btf, variable->name_off), name))
			continue;
		*offset = variables[i].offset;
		*size = variables[i].size;
		return 0;
	}
	return -ENOENT;
}

/* Loads a program of bare instructions; returns its descriptor. */
static int program_load(int type, int attach_type, const char *name, const void *instructions, size_t count, char *log,
			size_t log_size)
{
	LIBBPF_OPTS(bpf_prog_load_opts, options, .expected_attach_type = attach_type, .log_buf = log,
		    .log_size = log_size, .log_level = log ? 1 : 0);

	return bpf_prog_load(type, name, "Dual BSD/GPL", instructions, count, &options);
}

/* Runs an iterator over all elements of a map; it prints nothing. */
static int map_iterate(int program_fd, int map_fd)
{
	union bpf_iter_link_info of_map = {.map = {.map_fd = map_fd}};
	LIBBPF_OPTS(bpf_link_create_opts, options, .iter_info = &of_map, .iter_info_len = sizeof(of_map));
	int link = bpf_link_create(program_fd, 0, BPF_TRACE_ITER, &options), iterator, result;
	char nothing[64];
	ssize_t got = 1;

	if (link < 0)
		return link;
	iterator = bpf_iter_create(link);
	result = iterator < 0 ? iterator : 0;
	while (!result && got) {
		got = read(iterator, nothing, sizeof(nothing));
		/* The kernel lets others run now and then. */
		if (got < 0 && errno != EAGAIN && errno != EINTR)
			result = -errno;
	}
	if (iterator >= 0)
		close(iterator);
	close(link);
	return result;
}

static int message_print(enum libbpf_print_level level, const char *format, va_list arguments)
{
	char *text;
	int length;

	/* Hundreds of lines for each object, of use to libbpf's own developers. */
	if (level == LIBBPF_DEBUG)
		return 0;
	length = vasprintf(&text, format, arguments);
	if (length < 0)
		return length;
	message_received(level, text);
	free(text);
	return length;
}

static void messages_redirect(void)
{
	libbpf_set_print(message_print);
}
