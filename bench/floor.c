/*
 * The floor: what the kernel itself needs for a Pod of two containers, with no runtime around it.
 *
 * One process does the system calls that any Pod runtime must do, in the plainest order, and takes the time from the
 * first of them until both containers' programs are exec'd; then the time to take it all down again:
 *
 *   Pod         cgroup in every hierarchy with limits written; net, uts and ipc namespaces, pinned by bind mounts; host
 *               name; loopback; a veth pair with its peer made inside the namespace, addresses and default routes of
 *               IPv4 and IPv6, the host's end on a bridge; a tmpfs for /dev/shm; hosts, resolv.conf, hostname
 *   container   cgroup beneath the Pod's, with limits; pid, mount and cgroup namespaces; overlay root; proc, /dev with
 *               its nodes, devpts, mqueue, shm, sysfs, cgroup file systems; masked and read-only paths; the three files;
 *               pivot_root; rlimit, capabilities, no_new_privs, a seccomp filter of the usual size, groups and ids; exec
 *
 * The program that is exec'd is this one again (statically linked), as the root file system's only file: it writes a byte
 * and sleeps. A run counts only if both bytes came.
 *
 * usage: floor -d DIR [-n RUNS] [-c cpu,memory,pids,devices,unified] [-b BRIDGE]
 * Prints one JSON object: {"runs", "create_ms": [...], "delete_ms": [...], "controllers": [...]}.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/seccomp.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CONTAINERS 2
#define MAX_HIERARCHIES 16
#define TAG "podrt-floor"

static char dir[256], bridge[16] = "pr-floor";
static char self[4096];

static void die(const char *format, ...)
{
    int error = errno;
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "floor: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, ": %s\n", strerror(error));
    va_end(arguments);
    exit(1);
}

static const char *path(const char *format, ...)
{
    static char buffers[8][4096];
    static unsigned next;
    char *buffer = buffers[next++ % 8];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(buffer, sizeof buffers[0], format, arguments);
    va_end(arguments);
    return buffer;
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static void put(const char *file, const char *text)
{
    int fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        die("write %s", file);
    close(fd);
}

static void make_dir(const char *name)
{
    if (mkdir(name, 0755) && errno != EEXIST)
        die("mkdir %s", name);
}

static void must_mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)
{
    if (mount(source, target, type, flags, data))
        die("mount %s on %s", source, target);
}

/* ---- rtnetlink ------------------------------------------------------------------------------------------------- */

struct message {
    struct nlmsghdr header;
    char body[1024];
};

static void attribute(struct message *m, int type, const void *data, int size)
{
    struct rtattr *a = (void *)((char *)m + NLMSG_ALIGN(m->header.nlmsg_len));
    a->rta_type = type;
    a->rta_len = RTA_LENGTH(size);
    if (size)
        memcpy(RTA_DATA(a), data, size);
    m->header.nlmsg_len = NLMSG_ALIGN(m->header.nlmsg_len) + RTA_ALIGN(a->rta_len);
}

static struct rtattr *nest(struct message *m, int type)
{
    struct rtattr *a = (void *)((char *)m + NLMSG_ALIGN(m->header.nlmsg_len));
    attribute(m, type, NULL, 0);
    return a;
}

static void end_nest(struct message *m, struct rtattr *a)
{
    a->rta_len = (char *)m + m->header.nlmsg_len - (char *)a;
}

static void begin(struct message *m, int type, int flags, const void *head, int size)
{
    memset(m, 0, sizeof *m);
    m->header.nlmsg_type = type;
    m->header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    m->header.nlmsg_len = NLMSG_LENGTH(size);
    memcpy(NLMSG_DATA(&m->header), head, size);
}

static int netlink_socket(void)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0)
        die("netlink socket");
    return fd;
}

static int talk(int fd, struct message *m)
{
    char answer[4096];
    if (send(fd, m, m->header.nlmsg_len, 0) < 0)
        die("netlink send");
    if (recv(fd, answer, sizeof answer, 0) < 0)
        die("netlink recv");
    struct nlmsghdr *header = (void *)answer;
    if (header->nlmsg_type != NLMSG_ERROR)
        return 0;
    errno = -((struct nlmsgerr *)NLMSG_DATA(header))->error;
    return errno ? -1 : 0;
}

static void must_talk(int fd, struct message *m, const char *what)
{
    if (talk(fd, m))
        die("netlink: %s", what);
}

static void link_up(int fd, int index)
{
    struct message m;
    struct ifinfomsg link = {.ifi_index = index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    begin(&m, RTM_NEWLINK, 0, &link, sizeof link);
    must_talk(fd, &m, "link up");
}

static void link_delete(int fd, const char *name)
{
    struct message m;
    struct ifinfomsg link = {0};
    begin(&m, RTM_DELLINK, 0, &link, sizeof link);
    attribute(&m, IFLA_IFNAME, name, strlen(name) + 1);
    talk(fd, &m);
}

static void address_add(int fd, int index, int family, const char *text, int prefix)
{
    struct message m;
    unsigned char address[16];
    int size = family == AF_INET ? 4 : 16;
    struct ifaddrmsg head = {.ifa_family = family, .ifa_prefixlen = prefix, .ifa_index = index};
    unsigned flags = IFA_F_NODAD;
    inet_pton(family, text, address);
    begin(&m, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &head, sizeof head);
    attribute(&m, IFA_LOCAL, address, size);
    attribute(&m, IFA_ADDRESS, address, size);
    if (family == AF_INET6)
        attribute(&m, IFA_FLAGS, &flags, sizeof flags);
    must_talk(fd, &m, "address");
}

static void default_route(int fd, int index, int family, const char *text)
{
    struct message m;
    unsigned char gateway[16];
    struct rtmsg head = {.rtm_family = family, .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_STATIC,
                         .rtm_scope = RT_SCOPE_UNIVERSE, .rtm_type = RTN_UNICAST};
    inet_pton(family, text, gateway);
    begin(&m, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &head, sizeof head);
    attribute(&m, RTA_GATEWAY, gateway, family == AF_INET ? 4 : 16);
    attribute(&m, RTA_OIF, &index, sizeof index);
    must_talk(fd, &m, "route");
}

static int bridge_make(int fd)
{
    struct message m;
    struct ifinfomsg link = {.ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    begin(&m, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link, sizeof link);
    attribute(&m, IFLA_IFNAME, bridge, strlen(bridge) + 1);
    struct rtattr *info = nest(&m, IFLA_LINKINFO);
    attribute(&m, IFLA_INFO_KIND, "bridge", 6);
    end_nest(&m, info);
    must_talk(fd, &m, "bridge");
    int index = if_nametoindex(bridge);
    address_add(fd, index, AF_INET, "10.214.0.1", 16);
    address_add(fd, index, AF_INET6, "fd14:7064::1", 64);
    return index;
}

/* The pair: the host's end on the bridge and up, the peer made as eth0 in the namespace `netns`. */
static void veth_make(int fd, const char *name, int bridge_index, int netns)
{
    struct message m;
    struct ifinfomsg link = {.ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    begin(&m, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link, sizeof link);
    attribute(&m, IFLA_IFNAME, name, strlen(name) + 1);
    attribute(&m, IFLA_MASTER, &bridge_index, sizeof bridge_index);
    struct rtattr *info = nest(&m, IFLA_LINKINFO);
    attribute(&m, IFLA_INFO_KIND, "veth", 4);
    struct rtattr *data = nest(&m, IFLA_INFO_DATA);
    struct rtattr *peer = nest(&m, VETH_INFO_PEER);
    struct ifinfomsg other = {0}; /* can't be up yet: veth_open wants both ends to be there */
    memcpy((char *)&m + m.header.nlmsg_len, &other, sizeof other);
    m.header.nlmsg_len += NLMSG_ALIGN(sizeof other);
    attribute(&m, IFLA_IFNAME, "eth0", 5);
    attribute(&m, IFLA_NET_NS_FD, &netns, sizeof netns);
    end_nest(&m, peer);
    end_nest(&m, data);
    end_nest(&m, info);
    must_talk(fd, &m, "veth");
}

/* ---- cgroups --------------------------------------------------------------------------------------------------- */

static struct hierarchy {
    char name[32];
    char mount[256];
} hierarchies[MAX_HIERARCHIES];
static int hierarchy_count;

static int listed(const char *list, const char *name)
{
    size_t length = strlen(name);
    for (const char *p = list; (p = strstr(p, name)); p += length)
        if ((p == list || p[-1] == ',') && (p[length] == ',' || !p[length]))
            return 1;
    return 0;
}

/* Which hierarchies there are, of the controllers asked for. */
static void cgroups_find(const char *wanted)
{
    char line[4096], point[256], type[32], options[1024];
    FILE *file = fopen("/proc/self/mountinfo", "re");
    while (file && fgets(line, sizeof line, file) && hierarchy_count < MAX_HIERARCHIES) {
        const char *rest = strstr(line, " - ");
        if (!rest || sscanf(line, "%*s %*s %*s %*s %255s", point) != 1 ||
            sscanf(rest, " - %31s %*s %1023s", type, options) != 2)
            continue;
        const char *name = NULL;
        if (!strcmp(type, "cgroup2"))
            name = "unified";
        for (char *o = strcmp(type, "cgroup") ? NULL : strtok(options, ","); o && !name; o = strtok(NULL, ","))
            if (listed(wanted, o))
                name = o;
        if (name && listed(wanted, name)) {
            snprintf(hierarchies[hierarchy_count].name, 32, "%s", name);
            snprintf(hierarchies[hierarchy_count++].mount, 256, "%s", point);
        }
    }
    if (file)
        fclose(file);
}

static void limit(const struct hierarchy *h, const char *group, const char *file, const char *value)
{
    put(path("%s/" TAG "/%s/%s", h->mount, group, file), value);
}

static void cgroups_make(const char *group)
{
    for (int i = 0; i < hierarchy_count; i++) {
        const struct hierarchy *h = &hierarchies[i];
        make_dir(path("%s/" TAG "/%s", h->mount, group));
        if (!strcmp(h->name, "cpu")) {
            limit(h, group, "cpu.shares", "512");
            limit(h, group, "cpu.cfs_quota_us", "50000");
        } else if (!strcmp(h->name, "memory")) {
            limit(h, group, "memory.limit_in_bytes", "67108864");
        } else if (!strcmp(h->name, "pids")) {
            limit(h, group, "pids.max", "4096");
        } else if (!strcmp(h->name, "devices") && strchr(group, '/')) {
            static const char *const rules[] = {"c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm",
                "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm", NULL};
            limit(h, group, "devices.deny", "a");
            for (int r = 0; rules[r]; r++)
                limit(h, group, "devices.allow", rules[r]);
        } else if (!strcmp(h->name, "unified") && access(path("%s/" TAG "/cgroup.controllers", h->mount), R_OK) == 0) {
            /* on a pure v2 machine the limits are here */
            const char *base = path("%s/" TAG "/%s", h->mount, group);
            if (!access(path("%s/memory.max", base), W_OK))
                limit(h, group, "memory.max", "67108864");
            if (!access(path("%s/cpu.max", base), W_OK))
                limit(h, group, "cpu.max", "50000 100000");
            if (!access(path("%s/pids.max", base), W_OK))
                limit(h, group, "pids.max", "4096");
            if (!strchr(group, '/'))
                for (const char *c = "cpu\0memory\0pids\0"; *c; c += strlen(c) + 1)
                    if (!access(path("%s/%s.max", base, c), F_OK))
                        put(path("%s/cgroup.subtree_control", base), path("+%s", c));
        }
    }
}

static void cgroups_join(const char *group)
{
    for (int i = 0; i < hierarchy_count; i++)
        put(path("%s/" TAG "/%s/cgroup.procs", hierarchies[i].mount, group), "0");
}

static void cgroups_remove(const char *group)
{
    for (int i = 0; i < hierarchy_count; i++) {
        const char *name = path("%s/" TAG "%s%s", hierarchies[i].mount, *group ? "/" : "", group);
        /* busy until the last task has gone through its exit in the kernel */
        for (int tries = 0; rmdir(name) && errno == EBUSY && tries < 10000; tries++)
            usleep(50);
    }
}

/* ---- the container --------------------------------------------------------------------------------------------- */

static const char *const masked[] = {"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
    "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap", NULL};
static const char *const readonly[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", NULL};

static void device_nodes(const char *root)
{
    static const struct { const char *name; int major, minor; } nodes[] = {{"null", 1, 3}, {"zero", 1, 5},
        {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};
    static const char *const links[][2] = {{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"},
        {"/proc/self/fd/1", "stdout"}, {"/proc/self/fd/2", "stderr"}, {"pts/ptmx", "ptmx"}};
    for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++)
        if (mknod(path("%s/dev/%s", root, nodes[i].name), S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)))
            die("mknod %s", nodes[i].name);
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        if (symlink(links[i][0], path("%s/dev/%s", root, links[i][1])))
            die("symlink %s", links[i][1]);
}

static void file_systems(const char *pod, const char *container)
{
    const unsigned long safe = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    const char *root = strdup(path("%s/%s/root", pod, container));
    must_mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL);
    must_mount("overlay", root, "overlay", 0, path("lowerdir=%s/lower2:%s/lower1,upperdir=%s/%s/upper,workdir=%s/%s/work",
        dir, dir, pod, container, pod, container));
    must_mount("proc", path("%s/proc", root), "proc", safe, NULL);
    must_mount("tmpfs", path("%s/dev", root), "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k");
    device_nodes(root);
    make_dir(path("%s/dev/pts", root));
    make_dir(path("%s/dev/mqueue", root));
    make_dir(path("%s/dev/shm", root));
    must_mount("devpts", path("%s/dev/pts", root), "devpts", MS_NOSUID | MS_NOEXEC,
        "newinstance,ptmxmode=0666,mode=0620,gid=5");
    must_mount("mqueue", path("%s/dev/mqueue", root), "mqueue", safe, NULL);
    must_mount(path("%s/shm", pod), path("%s/dev/shm", root), NULL, MS_BIND, NULL);
    must_mount("sysfs", path("%s/sys", root), "sysfs", safe | MS_RDONLY, NULL);
    must_mount("tmpfs", path("%s/sys/fs/cgroup", root), "tmpfs", safe, "mode=755");
    for (int i = 0; i < hierarchy_count; i++) {
        const char *name = hierarchies[i].name, *point = path("%s/sys/fs/cgroup/%s", root, name);
        make_dir(point);
        if (strcmp(name, "unified"))
            must_mount("cgroup", point, "cgroup", safe | MS_RDONLY, name);
        else
            must_mount("cgroup2", point, "cgroup2", safe | MS_RDONLY, NULL);
    }
    must_mount("", path("%s/sys/fs/cgroup", root), NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | safe, NULL);
    static const char *const files[] = {"hosts", "resolv.conf", "hostname"};
    for (int i = 0; i < 3; i++)
        must_mount(path("%s/%s", pod, files[i]), path("%s/etc/%s", root, files[i]), NULL, MS_BIND, NULL);
    for (int i = 0; readonly[i]; i++) {
        const char *point = path("%s%s", root, readonly[i]);
        if (mount(point, point, NULL, MS_BIND | MS_REC, NULL) == 0)
            must_mount("", point, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | safe, NULL);
    }
    for (int i = 0; masked[i]; i++) {
        const char *point = path("%s%s", root, masked[i]);
        struct stat status;
        if (stat(point, &status))
            continue;
        if (S_ISDIR(status.st_mode))
            must_mount("tmpfs", point, "tmpfs", MS_RDONLY | safe, "size=0k");
        else
            must_mount("/dev/null", point, NULL, MS_BIND, NULL);
    }
    if (chdir(root) || syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/"))
        die("pivot_root %s", root);
}

/* As long as the usual default profile: one comparison for each of some 400 system calls that are allowed. */
static void seccomp_load(void)
{
    static const int refused[] = {SYS_kexec_load, SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_reboot,
        SYS_swapon, SYS_swapoff, SYS_mount, SYS_umount2, SYS_pivot_root, SYS_bpf, SYS_perf_event_open, SYS_keyctl};
    static struct sock_filter code[1024];
    unsigned short n = 0;
    int last = 460;
    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int number = 0; number <= last; number++) {
        int skip = 0;
        for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
            skip |= refused[i] == number;
        if (skip)
            continue;
        code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1);
        code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    struct sock_fprog program = {.len = n, .filter = code};
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        die("seccomp");
}

static void privileges(void)
{
    const unsigned keep = 0xa80425fb; /* the 14 capabilities of the usual default set */
    const struct rlimit files = {1024, 1024};
    setrlimit(RLIMIT_NOFILE, &files);
    for (int capability = 0; capability <= 40; capability++)
        if (capability > 31 || !(keep >> capability & 1))
            prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
    if (setgroups(0, NULL) || setresgid(0, 0, 0) || setresuid(0, 0, 0))
        die("setresuid");
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{keep, keep, 0}, {0, 0, 0}};
    if (syscall(SYS_capset, &header, data) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        die("capset");
    seccomp_load();
}

static void container_child(const char *pod, const char *container, const char *group, const int *namespaces, int exec_fd)
{
    char *argv[] = {"/app", "--app", NULL}, *env[] = {"PATH=/", NULL};
    int fifo = open(path("%s/%s/stdout", pod, container), O_RDWR);
    if (fifo < 0 || dup2(fifo, 1) < 0)
        die("stdout");
    cgroups_join(group);
    for (int i = 0; i < 3; i++)
        if (setns(namespaces[i], 0))
            die("setns");
    if (unshare(CLONE_NEWNS | CLONE_NEWCGROUP))
        die("unshare");
    file_systems(pod, container);
    /* everything but 0, 1, 2 goes with the exec; exec_fd tells the parent by its end of file */
    if (syscall(SYS_close_range, 3, ~0U, 1U << 2) || fcntl(exec_fd, F_SETFD, FD_CLOEXEC))
        die("close_range");
    privileges();
    execve(argv[0], argv, env);
    die("exec %s", argv[0]);
}

/* ---- the Pod --------------------------------------------------------------------------------------------------- */

struct pod {
    char path[512], group[64], veth[16];
    pid_t pids[CONTAINERS];
    int exec_fds[CONTAINERS], stdout_fds[CONTAINERS];
};

static const char *const pinned[] = {"net", "uts", "ipc"};

/* In a child: the namespaces, made and pinned, and the network in them. */
static void sandbox_child(const struct pod *pod, int number, int host_netlink, int bridge_index)
{
    char name[] = "floor", v4[32], v6[64];
    if (unshare(CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC))
        die("unshare");
    if (sethostname(name, strlen(name)))
        die("sethostname");
    for (int i = 0; i < 3; i++) {
        put(path("%s/%s", pod->path, pinned[i]), "");
        must_mount(path("/proc/self/ns/%s", pinned[i]), path("%s/%s", pod->path, pinned[i]), NULL, MS_BIND, NULL);
    }
    int netns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    veth_make(host_netlink, pod->veth, bridge_index, netns);
    int fd = netlink_socket(), index = if_nametoindex("eth0");
    snprintf(v4, sizeof v4, "10.214.%d.%d", 1 + number / 250, 1 + number % 250);
    snprintf(v6, sizeof v6, "fd14:7064::%x", 256 + number);
    link_up(fd, 1);
    link_up(fd, index);
    address_add(fd, index, AF_INET, v4, 16);
    address_add(fd, index, AF_INET6, v6, 64);
    default_route(fd, index, AF_INET, "10.214.0.1");
    default_route(fd, index, AF_INET6, "fd14:7064::1");
    _exit(0);
}

static void pod_create(struct pod *pod, int number, int host_netlink, int bridge_index)
{
    int status, namespaces[3];
    snprintf(pod->path, sizeof pod->path, "%s/pod%d", dir, number);
    snprintf(pod->group, sizeof pod->group, "pod%d", number);
    snprintf(pod->veth, sizeof pod->veth, "vf%d", number);
    make_dir(pod->path);
    put(path("%s/hosts", pod->path), "127.0.0.1 localhost\n::1 localhost\n");
    put(path("%s/resolv.conf", pod->path), "nameserver 10.214.0.1\n");
    put(path("%s/hostname", pod->path), "floor\n");
    make_dir(path("%s/shm", pod->path));
    must_mount("shm", path("%s/shm", pod->path), "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=65536k");
    cgroups_make(pod->group);
    pid_t sandbox = fork();
    if (sandbox == 0)
        sandbox_child(pod, number, host_netlink, bridge_index);
    if (sandbox < 0 || waitpid(sandbox, &status, 0) != sandbox || status)
        die("sandbox failed (%d)", status);
    for (int i = 0; i < 3; i++)
        if ((namespaces[i] = open(path("%s/%s", pod->path, pinned[i]), O_RDONLY | O_CLOEXEC)) < 0)
            die("open pin");
    for (int c = 0; c < CONTAINERS; c++) {
        const char *name = c ? "b" : "a", *group = strdup(path("%s/%s", pod->group, name));
        int pipe_fds[2];
        make_dir(path("%s/%s", pod->path, name));
        make_dir(path("%s/%s/upper", pod->path, name));
        make_dir(path("%s/%s/work", pod->path, name));
        make_dir(path("%s/%s/root", pod->path, name));
        if (mkfifo(path("%s/%s/stdout", pod->path, name), 0600) || mkfifo(path("%s/%s/stderr", pod->path, name), 0600))
            die("mkfifo");
        if ((pod->stdout_fds[c] = open(path("%s/%s/stdout", pod->path, name), O_RDWR | O_CLOEXEC)) < 0)
            die("open fifo");
        cgroups_make(group);
        if (pipe2(pipe_fds, O_CLOEXEC))
            die("pipe");
        pod->pids[c] = syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0);
        if (pod->pids[c] < 0)
            die("clone");
        if (pod->pids[c] == 0)
            container_child(pod->path, name, group, namespaces, pipe_fds[1]);
        close(pipe_fds[1]);
        pod->exec_fds[c] = pipe_fds[0];
        free((void *)group);
    }
    for (int c = 0; c < CONTAINERS; c++) {
        char byte;
        if (read(pod->exec_fds[c], &byte, 1) != 0)
            die("no end of file from container %d", c);
        close(pod->exec_fds[c]);
    }
    for (int i = 0; i < 3; i++)
        close(namespaces[i]);
}

static void pod_verify(struct pod *pod)
{
    for (int c = 0; c < CONTAINERS; c++) {
        char byte = 0;
        if (read(pod->stdout_fds[c], &byte, 1) != 1 || byte != 'r')
            die("container %d does not run", c);
    }
}

static int remove_entry(const char *name, const struct stat *status, int type, struct FTW *ftw)
{
    (void)status, (void)type, (void)ftw;
    return remove(name);
}

static void pod_delete(struct pod *pod, int host_netlink)
{
    for (int c = 0; c < CONTAINERS; c++)
        kill(pod->pids[c], SIGKILL);
    for (int c = 0; c < CONTAINERS; c++) {
        waitpid(pod->pids[c], NULL, 0);
        close(pod->stdout_fds[c]);
    }
    link_delete(host_netlink, pod->veth);
    for (int i = 0; i < 3; i++)
        umount2(path("%s/%s", pod->path, pinned[i]), MNT_DETACH);
    umount2(path("%s/shm", pod->path), MNT_DETACH);
    for (int c = 0; c < CONTAINERS; c++)
        cgroups_remove(strdup(path("%s/%s", pod->group, c ? "b" : "a")));
    cgroups_remove(pod->group);
    if (nftw(pod->path, remove_entry, 16, FTW_DEPTH | FTW_PHYS))
        die("remove %s", pod->path);
}

/* ---- set-up of the whole, not timed ---------------------------------------------------------------------------- */

static void lower_make(void)
{
    static const char *const directories[] = {"lower1", "lower2", "lower1/proc", "lower1/sys", "lower1/dev",
        "lower1/etc", "lower1/tmp", NULL};
    char buffer[65536];
    ssize_t size;
    for (int i = 0; directories[i]; i++)
        make_dir(path("%s/%s", dir, directories[i]));
    put(path("%s/lower1/etc/hosts", dir), "");
    put(path("%s/lower1/etc/resolv.conf", dir), "");
    put(path("%s/lower1/etc/hostname", dir), "");
    int in = open(self, O_RDONLY | O_CLOEXEC);
    int out = open(path("%s/lower1/app", dir), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
    while ((size = read(in, buffer, sizeof buffer)) > 0)
        if (write(out, buffer, size) != size)
            die("copy %s", self);
    if (in < 0 || out < 0 || size < 0)
        die("copy %s", self);
    close(in);
    close(out);
}

static void print_list(const char *name, const double *values, int count)
{
    printf("\"%s\": [", name);
    for (int i = 0; i < count; i++)
        printf("%s%.3f", i ? ", " : "", values[i]);
    printf("]");
}

int main(int argc, char **argv)
{
    int option, runs = 30;
    const char *controllers = "cpu,memory,pids,devices,unified";
    if (argc > 1 && !strcmp(argv[1], "--app")) {
        if (write(1, "r", 1) == 1)
            pause();
        return 1;
    }
    while ((option = getopt(argc, argv, "n:d:c:b:")) != -1) {
        if (option == 'n')
            runs = atoi(optarg);
        else if (option == 'd' && strlen(optarg) < 200)
            snprintf(dir, sizeof dir, "%s", optarg);
        else if (option == 'c')
            controllers = optarg;
        else if (option == 'b')
            snprintf(bridge, sizeof bridge, "%s", optarg);
        else
            return fprintf(stderr, "usage: floor -d DIR [-n RUNS] [-c CONTROLLERS] [-b BRIDGE]\n"), 2;
    }
    if (!*dir || runs < 1)
        return fprintf(stderr, "usage: floor -d DIR [-n RUNS] [-c CONTROLLERS] [-b BRIDGE]\n"), 2;
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    self[length > 0 ? length : 0] = 0;
    lower_make();
    cgroups_find(controllers);
    for (int i = 0; i < hierarchy_count; i++)
        make_dir(path("%s/" TAG, hierarchies[i].mount));
    int host_netlink = netlink_socket();
    link_delete(host_netlink, bridge);
    int bridge_index = bridge_make(host_netlink);

    double *create = calloc(runs, sizeof *create), *delete = calloc(runs, sizeof *delete);
    struct pod pod;
    for (int i = -2; i < runs; i++) { /* two to warm up */
        double start = now_ms();
        pod_create(&pod, i + 2, host_netlink, bridge_index);
        double created = now_ms();
        pod_verify(&pod);
        usleep(20000); /* let it settle: as a runtime's Pods are made one at a time too */
        double stop = now_ms();
        pod_delete(&pod, host_netlink);
        if (i >= 0) {
            create[i] = created - start;
            delete[i] = now_ms() - stop;
        }
        usleep(50000);
    }
    link_delete(host_netlink, bridge);
    cgroups_remove("");
    printf("{\"runs\": %d, \"controllers\": [", runs);
    for (int i = 0; i < hierarchy_count; i++)
        printf("%s\"%s\"", i ? ", " : "", hierarchies[i].name);
    printf("], ");
    print_list("create_ms", create, runs);
    printf(", ");
    print_list("delete_ms", delete, runs);
    printf("}\n");
    return 0;
}
