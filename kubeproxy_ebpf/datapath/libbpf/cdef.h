/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What Python sees of libbpf, the bpf(2) wrappers and source.c: plain declarations for cffi.
 * No preprocessor lines here; compiled in API mode, so gcc checks each against the real headers.
 * Enums of the kernel's interface are passed as int.
 */

/* bpf(2) on map descriptors */
struct bpf_map_info {
	uint32_t type, id, key_size, value_size, max_entries, map_flags;
	char name[16];
	...;
};
struct bpf_map_create_opts {
	size_t sz;
	uint32_t inner_map_fd, map_flags;
	...;
};
struct bpf_map_batch_opts {
	size_t sz;
	uint64_t elem_flags, flags;
	...;
};
struct bpf_obj_get_opts {
	size_t sz;
	uint32_t file_flags;
	...;
};
int bpf_map_create(int map_type, const char *map_name, uint32_t key_size, uint32_t value_size, uint32_t max_entries,
		   const struct bpf_map_create_opts *opts);
int bpf_map_update_elem(int fd, const void *key, const void *value, uint64_t flags);
int bpf_map_lookup_elem(int fd, const void *key, void *value);
int bpf_map_delete_elem(int fd, const void *key);
int bpf_map_get_next_key(int fd, const void *key, void *next_key);
int bpf_map_update_batch(int fd, const void *keys, const void *values, uint32_t *count,
			 const struct bpf_map_batch_opts *opts);
int bpf_map_delete_batch(int fd, const void *keys, uint32_t *count, const struct bpf_map_batch_opts *opts);
int bpf_map_lookup_batch(int fd, void *in_batch, void *out_batch, void *keys, void *values, uint32_t *count,
			 const struct bpf_map_batch_opts *opts);

/* descriptors of any kind */
int bpf_obj_pin(int fd, const char *pathname);
int bpf_obj_get_opts(const char *pathname, const struct bpf_obj_get_opts *opts);
int bpf_obj_get_info_by_fd(int fd, void *info, uint32_t *info_len);
int bpf_map_get_next_id(uint32_t start_id, uint32_t *next_id);
int bpf_prog_get_next_id(uint32_t start_id, uint32_t *next_id);
int bpf_link_get_next_id(uint32_t start_id, uint32_t *next_id);
int bpf_map_get_fd_by_id(uint32_t id);
int bpf_prog_get_fd_by_id(uint32_t id);
int bpf_link_get_fd_by_id(uint32_t id);

/* programs and links */
struct bpf_prog_info {
	uint32_t type, id, nr_map_ids;
	uint64_t map_ids;
	char name[16];
	...;
};
struct bpf_link_create_opts {
	size_t sz;
	uint32_t flags;
	...;
};
int bpf_link_create(int prog_fd, int target_fd, int attach_type, const struct bpf_link_create_opts *opts);
int bpf_link_update(int link_fd, int new_prog_fd, const void *opts);
int bpf_link_detach(int link_fd);
int bpf_prog_attach(int prog_fd, int attachable_fd, int attach_type, unsigned int flags);
int bpf_prog_detach2(int prog_fd, int attachable_fd, int attach_type);
int bpf_prog_query(int target_fd, int attach_type, uint32_t query_flags, uint32_t *attach_flags, uint32_t *prog_ids,
		   uint32_t *prog_cnt);
struct __sk_buff {
	uint32_t mark;
	...;
};
struct bpf_test_run_opts {
	size_t sz;
	const void *data_in, *ctx_in;
	void *data_out, *ctx_out;
	uint32_t data_size_in, data_size_out, ctx_size_in, ctx_size_out, retval;
	...;
};
int bpf_prog_test_run_opts(int prog_fd, struct bpf_test_run_opts *opts);
int libbpf_probe_bpf_map_type(int map_type, const void *opts);
int libbpf_probe_bpf_helper(int prog_type, int helper_id, const void *opts);

/* objects */
struct bpf_object;
struct bpf_map;
struct bpf_program;
struct bpf_object *bpf_object__open_file(const char *path, const void *opts);
int bpf_object__load(struct bpf_object *obj);
void bpf_object__close(struct bpf_object *obj);
struct bpf_map *bpf_object__next_map(const struct bpf_object *obj, const struct bpf_map *map);
struct bpf_program *bpf_object__next_program(const struct bpf_object *obj, struct bpf_program *prog);
const char *bpf_map__name(const struct bpf_map *map);
int bpf_map__type(const struct bpf_map *map);
uint32_t bpf_map__key_size(const struct bpf_map *map);
uint32_t bpf_map__value_size(const struct bpf_map *map);
uint32_t bpf_map__max_entries(const struct bpf_map *map);
uint32_t bpf_map__map_flags(const struct bpf_map *map);
bool bpf_map__is_internal(const struct bpf_map *map);
int bpf_map__set_max_entries(struct bpf_map *map, uint32_t max_entries);
int bpf_map__reuse_fd(struct bpf_map *map, int fd);
int bpf_map__fd(const struct bpf_map *map);
const void *bpf_map__initial_value(struct bpf_map *map, size_t *size);
const char *bpf_program__name(const struct bpf_program *prog);
int bpf_program__type(const struct bpf_program *prog);
int bpf_program__expected_attach_type(const struct bpf_program *prog);
int bpf_program__fd(const struct bpf_program *prog);

/* ring buffer */
struct ring_buffer;
typedef int (*ring_buffer_sample_fn)(void *context, void *data, size_t size);
struct ring_buffer *ring_buffer__new(int map_fd, ring_buffer_sample_fn sample_cb, void *context, const void *opts);
void ring_buffer__free(struct ring_buffer *rb);
int ring_buffer__consume(struct ring_buffer *rb);
int ring_buffer__epoll_fd(const struct ring_buffer *rb);

int libbpf_num_possible_cpus(void);

/* of our own: source.c */
struct link_description {
	uint32_t type, id, prog_id, attach_type, interface;
	uint64_t cgroup_id;
};
void store_release_u64(void *base, size_t offset, uint64_t word);
int membarrier_global(void);
int filesystem_magic(const char *path, uint64_t *magic);
int link_describe(int link_fd, struct link_description *description);
int constant_find(const struct bpf_object *obj, const char *name, uint32_t *offset, uint32_t *size);
int program_load(int type, int attach_type, const char *name, const void *instructions, size_t count, char *log,
		 size_t log_size);
int map_iterate(int program_fd, int map_fd);
void messages_redirect(void);

extern "Python" void message_received(int level, char *text);
extern "Python" int sample_received(void *context, void *data, size_t size);
