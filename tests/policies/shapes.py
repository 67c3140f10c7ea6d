# ruff: noqa: E501
"""Policies of the shapes that people copy most, in our own words. Each is a spec."""

FILE_WATCH = """
kprobes:
- call: security_file_permission
  syscall: false
  return: true
  args: [{index: 0, type: file}, {index: 1, type: int}]
  returnArg: {index: 0, type: int}
  returnArgAction: Post
  selectors:
  - matchArgs:
    - {index: 0, operator: Prefix, values: [/srv/keys/, /srv/config/, /home/, /opt/, /var/a, /var/b, /var/c, /var/d, /e]}
    - {index: 1, operator: Equal, values: ["4"]}
  - matchArgs:
    - {index: 0, operator: Postfix, values: [.pem]}
- call: security_mmap_file
  syscall: false
  args: [{index: 0, type: file}, {index: 1, type: uint32}, {index: 2, type: uint32}]
  selectors:
  - matchArgs: [{index: 0, operator: Prefix, values: [/srv/]}, {index: 2, operator: Mask, values: [0x1]}]
- call: security_path_truncate
  syscall: false
  args: [{index: 0, type: path}]
"""
FILE_GUARD = """
podSelector: {matchLabels: {app: shop}}
kprobes:
- call: security_file_permission
  syscall: false
  args: [{index: 0, type: file}, {index: 1, type: int}]
  selectors:
  - matchArgs: [{index: 0, operator: NotPrefix, values: [/data]}]
    matchActions: [{action: Sigkill}]
"""
EGRESS = """
kprobes:
- call: tcp_connect
  syscall: false
  args: [{index: 0, type: sock}]
  selectors:
  - matchArgs:
    - {index: 0, operator: NotDAddr, values: [10.244.0.0/16, 10.96.1.2/12, "fd00::/8", "::ffff:127.0.0.0/104"]}
    - {index: 0, operator: Family, values: [AF_INET, 10]}
    matchActions: [{action: Sigkill}]
"""
FOLLOW = """
kprobes:
- call: fd_install
  syscall: false
  args: [{index: 0, type: int}, {index: 1, type: file}]
  selectors:
  - matchPIDs: [{operator: NotIn, followForks: true, isNamespacePID: true, values: [0, 1]}]
    matchArgs: [{index: 1, operator: Prefix, values: [/etc/]}]
    matchActions: [{action: FollowFD, argFd: 0, argName: 1}]
- call: sys_close
  args: [{index: 0, type: fd}]
  selectors:
  - matchActions: [{action: UnfollowFD, argFd: 0, argName: 0}]
- call: sys_dup2
  args: [{index: 0, type: fd}, {index: 1, type: int}]
  selectors:
  - matchActions: [{action: CopyFD, argFd: 0, argName: 1}]
- call: sys_write
  args: [{index: 0, type: fd}, {index: 1, type: char_buf, sizeArgIndex: 3}, {index: 2, type: size_t}]
"""
TCP = """
kprobes:
- call: tcp_connect
  syscall: false
  args: [{index: 0, type: sock}]
  selectors:
  - matchArgs:
    - {index: 0, operator: DPort, values: ["443", "8000:8080"]}
    - {index: 0, operator: NotSportPriv}
    - {index: 0, operator: Protocol, values: [IPPROTO_TCP]}
- call: tcp_sendmsg
  syscall: false
  args: [{index: 0, type: sock}, {index: 2, type: int}]
"""
ACCEPT = """
kprobes:
- call: sk_alloc
  syscall: false
  return: true
  args: [{index: 1, type: int, label: family}]
  returnArg: {index: 0, type: sock}
  returnArgAction: TrackSock
  selectors:
  - matchArgs: [{index: 1, operator: Equal, values: ["2"]}]
- call: __sk_free
  syscall: false
  args: [{index: 0, type: sock}]
  selectors:
  - matchActions: [{action: UntrackSock, argSock: 0}]
- call: tcp_set_state
  syscall: false
  args: [{index: 0, type: sock}, {index: 1, type: int}]
  selectors:
  - matchArgs: [{index: 0, operator: State, values: [TCP_SYN_RECV]}, {index: 1, operator: Equal, values: ["1"]}]
"""
PRIVILEGES = """
kprobes:
- call: security_capset
  syscall: false
  message: A capability was gained
  tags: [privileges]
  args:
  - {index: 0, type: nop}
  - {index: 1, type: cap_effective, label: old}
  - {index: 2, type: cap_effective, label: new}
  selectors:
  - matchCapabilities: [{type: Effective, operator: In, isNamespaceCapability: true, values: [CAP_SYS_ADMIN, CAP_BPF]}]
    matchCapabilityChanges: [{operator: NotIn, values: [CAP_SETUID]}]
    matchNamespaceChanges: [{operator: In, values: [User, Mnt]}]
    matchArgs: [{args: [2, 1], operator: CapabilitiesGained}]
    matchActions: [{action: Post, rateLimit: 1m, rateLimitScope: global, kernelStackTrace: true}]
- call: __sys_setresuid
  syscall: false
  args: [{index: 0, type: int}]
  selectors:
  - matchArgs: [{index: 0, operator: Equal, values: ["0"]}]
"""
MODULES = """
kprobes:
- call: security_kernel_module_request
  syscall: false
  args: [{index: 0, type: string}]
- call: security_kernel_read_file
  syscall: false
  return: true
  args: [{index: 0, type: file}, {index: 1, type: int}]
  returnArg: {index: 0, type: int}
  selectors:
  - matchArgs: [{index: 1, operator: Equal, values: ["2"]}]
    matchReturnArgs: [{operator: NotEqual, values: ["0"]}]
    matchReturnActions: [{action: Post}]
- call: do_init_module
  syscall: false
  args: [{index: 0, type: module}]
"""
BPF = """
kprobes:
- call: bpf_check
  syscall: false
  args: [{index: 1, type: bpf_attr}]
- call: security_bpf
  syscall: false
  args: [{index: 0, type: bpf_cmd}]
  selectors:
  - matchArgs: [{index: 0, operator: InMap, values: [BPF_PROG_LOAD, "0"]}]
- call: security_bpf_map_alloc
  syscall: false
  args: [{index: 0, type: bpf_map}]
  ignore: {callNotFound: true}
"""
LSM = """
lsmhooks:
- hook: file_open
  args: [{index: 0, type: file}]
  selectors:
  - matchBinaries: [{operator: In, values: [/usr/bin/cat]}]
    matchArgs: [{index: 0, operator: Equal, values: [/etc/shadow]}, {index: 0, operator: FileType, values: [reg]}]
    matchActions: [{action: Post, imaHash: true}, {action: Override, argError: -1}]
- hook: bprm_check_security
  args: [{index: 0, type: string, resolve: mm.owner.real_parent.comm}, {index: 0, type: linux_binprm}]
  selectors:
  - matchParentBinaries: [{operator: Postfix, values: [/sh]}]
"""
KUBECTL_EXEC = """
kprobes:
- call: security_file_open
  syscall: false
  return: true
  args: [{index: 0, type: file}]
  returnArg: {index: 0, type: int}
  selectors:
  - matchPIDs: [{operator: NotIn, isNamespacePID: true, values: [1]}]
    matchArgs: [{index: 0, operator: Equal, values: [/run/secret]}]
    matchActions: [{action: Override, argError: -1}, {action: Sigkill}]
"""
DENY_CALLS = """
lists:
- {name: copies, type: syscalls, values: [sys_dup, sys_dup2, i386/sys_dup]}
- {name: every, type: generated_syscalls}
- {name: ksys, type: generated_ftrace, pattern: "^ksys_.*"}
enforcers:
- calls: ["list:copies"]
tracepoints:
- subsystem: raw_syscalls
  event: sys_enter
  args: [{index: 4, type: syscall64}]
  selectors:
  - matchArgs: [{index: 0, operator: InMap, values: ["list:copies"]}]
    matchActions: [{action: NotifyEnforcer, argError: -1, argSig: 9}]
- subsystem: sched
  event: sched_process_exec
  raw: true
  args: [{index: 0, type: int, resolve: "files[2].pid"}]
kprobes:
- call: "list:copies"
  selectors:
  - macros: [tools]
- call: "list:ksys"
- call: sys_lseek
  args: [{index: 2, type: int}, {index: 0, type: int}]
  data: [{index: 0, type: string, source: current_task, resolve: comm}]
  selectors:
  - matchArgs: [{operator: CelExpr, values: ["arg1 == int32(-1) && !(arg0 >= 4 + 1)"]}]
    matchData: [{index: 0, operator: Equal, values: [cat]}]
selectorsMacros:
  tools:
    matchBinaries: [{operator: In, values: [/bin/sh], followChildren: true}]
    matchNamespaces: [{namespace: Pid, operator: NotIn, values: [host_ns, "4026531836"]}]
options:
- {name: policy-mode, value: monitor}
- {name: disable-kprobe-multi, value: "1"}
"""
PROBES = """
podSelector: {}
containerSelector: {matchExpressions: [{key: name, operator: In, values: [main]}]}
nodeSelector: {matchExpressions: [{key: gpu, operator: Exists}]}
loader: true
uprobes:
- path: /bin/bash
  symbols: [readline, main]
  refCtrOffsets: [0, 16]
  resolvePathInContainer: true
  return: true
  returnArg: {type: string}
  binaryDigests: ["build-id:00ff"]
  selectors:
  - matchReturnArgs: [{operator: Prefix, values: [sudo]}]
  - matchWorkloads: {podSelector: {matchLabels: {a: b}}}
    matchActions: [{action: Override, argRegs: ["rax=0"]}]
usdts:
- path: /usr/bin/app
  provider: app
  name: start
  args: [{index: 0, type: int32}]
  selectors:
  - matchActions: [{action: Set, argIndex: 0, argValue: 1}]
fentries:
- call: vfs_write
  syscall: false
  args: [{index: 0, type: file}, {index: 2, type: size_t}]
  selectors:
  - matchArgs: [{index: 2, operator: InRange, values: ["1:0x10", "4096"]}, {index: 0, operator: Glob, values: ["/a/**/*.key"]}]
"""
SHAPES = {name: value for name, value in globals().items() if name.isupper() and isinstance(value, str)}
