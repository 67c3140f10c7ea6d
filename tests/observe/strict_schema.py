"""What strict readers of security events know: kinds, fields and words of Tetragon's API, as far as they are used.

Facts from api/v1/tetragon/*.proto; a test with the published files themselves is done by hand (`tetra getevents`).
"""

ENUMS = {
    "Capability": "CAP_CHOWN DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID"
    " CAP_SETPCAP CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_ADMIN CAP_NET_RAW CAP_IPC_LOCK"
    " CAP_IPC_OWNER CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT CAP_SYS_ADMIN"
    " CAP_SYS_BOOT CAP_SYS_NICE CAP_SYS_RESOURCE CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_MKNOD CAP_LEASE"
    " CAP_AUDIT_WRITE CAP_AUDIT_CONTROL CAP_SETFCAP CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG CAP_WAKE_ALARM"
    " CAP_BLOCK_SUSPEND CAP_AUDIT_READ CAP_PERFMON CAP_BPF CAP_CHECKPOINT_RESTORE",
    "SecureBit": "SecBitNotSet SecBitNoRoot SecBitNoRootLocked SecBitNoSetUidFixup=4 SecBitNoSetUidFixupLocked=8"
    " SecBitKeepCaps=16 SecBitKeepCapsLocked=32 SecBitNoCapAmbientRaise=64 SecBitNoCapAmbientRaiseLocked=128",
    "Privilege": "PRIVILEGES_CHANGED_UNSET PRIVILEGES_RAISED_EXEC_FILE_CAP PRIVILEGES_RAISED_EXEC_FILE_SETUID"
    " PRIVILEGES_RAISED_EXEC_FILE_SETGID",
    "Taint": "TAINT_UNSET TAINT_PROPRIETARY_MODULE TAINT_FORCED_MODULE TAINT_FORCED_UNLOAD_MODULE=4"
    " TAINT_STAGED_MODULE=1024 TAINT_OUT_OF_TREE_MODULE=4096 TAINT_UNSIGNED_MODULE=8192"
    " TAINT_KERNEL_LIVE_PATCH_MODULE=32768 TAINT_TEST_MODULE=262144",
    "BpfCommand": "BPF_MAP_CREATE BPF_MAP_LOOKUP_ELEM BPF_MAP_UPDATE_ELEM BPF_MAP_DELETE_ELEM BPF_MAP_GET_NEXT_KEY"
    " BPF_PROG_LOAD BPF_OBJ_PIN BPF_OBJ_GET BPF_PROG_ATTACH BPF_PROG_DETACH BPF_PROG_TEST_RUN BPF_PROG_GET_NEXT_ID"
    " BPF_MAP_GET_NEXT_ID BPF_PROG_GET_FD_BY_ID BPF_MAP_GET_FD_BY_ID BPF_OBJ_GET_INFO_BY_FD BPF_PROG_QUERY"
    " BPF_RAW_TRACEPOINT_OPEN BPF_BTF_LOAD BPF_BTF_GET_FD_BY_ID BPF_TASK_FD_QUERY BPF_MAP_LOOKUP_AND_DELETE_ELEM"
    " BPF_MAP_FREEZE BPF_BTF_GET_NEXT_ID BPF_MAP_LOOKUP_BATCH BPF_MAP_LOOKUP_AND_DELETE_BATCH BPF_MAP_UPDATE_BATCH"
    " BPF_MAP_DELETE_BATCH BPF_LINK_CREATE BPF_LINK_UPDATE BPF_LINK_GET_FD_BY_ID BPF_LINK_GET_NEXT_ID"
    " BPF_ENABLE_STATS BPF_ITER_CREATE BPF_LINK_DETACH BPF_PROG_BIND_MAP BPF_TOKEN_CREATE",
    "Action": "KPROBE_ACTION_UNKNOWN KPROBE_ACTION_POST KPROBE_ACTION_FOLLOWFD KPROBE_ACTION_SIGKILL"
    " KPROBE_ACTION_UNFOLLOWFD KPROBE_ACTION_OVERRIDE KPROBE_ACTION_COPYFD KPROBE_ACTION_GETURL"
    " KPROBE_ACTION_DNSLOOKUP KPROBE_ACTION_NOPOST KPROBE_ACTION_SIGNAL KPROBE_ACTION_TRACKSOCK"
    " KPROBE_ACTION_UNTRACKSOCK KPROBE_ACTION_NOTIFYENFORCER KPROBE_ACTION_CLEANUPENFORCERNOTIFICATION"
    " KPROBE_ACTION_SET",
}
_UINT, _INT, _BOOL = (f"google.protobuf.{name}Value" for name in ("UInt32", "Int32", "Bool"))
_TIME = "google.protobuf.Timestamp"
_WHO = "process:Process parent:Process ancestors:Process*"
_POLICY = f"{_WHO} policy_name:string message:string tags:string* args:Argument* action:Action"
_PROGRAM = "ProgType:string InsnCnt:uint32 ProgName:string"
_IDS = " ".join(f"{name}:{_UINT}" for name in ("uid", "gid", "euid", "egid", "suid", "sgid", "fsuid", "fsgid"))
_ARGUMENTS = (
    "string_arg:string int_arg:int32 skb_arg:Skb size_arg:uint64 bytes_arg:bytes path_arg:File file_arg:File"
    " truncated_bytes_arg:Truncated sock_arg:Sock long_arg:int64 bpf_attr_arg:Program perf_event_arg:PerfEvent"
    " bpf_map_arg:Map uint_arg:uint32 capability_arg:Cap process_credentials_arg:Credentials user_ns_arg:UserNamespace"
    " module_arg:Module kernel_cap_t_arg:string cap_inheritable_arg:string cap_permitted_arg:string"
    " cap_effective_arg:string linux_binprm_arg:Binprm net_dev_arg:Device bpf_cmd_arg:BpfCommand syscall_id:Call"
    " sockaddr_arg:Sockaddr bpf_prog_arg:Program error_arg:Error sockaddrun_arg:SockaddrUn"
)
MESSAGES = {
    "Response": "|process_exec:Exec |process_exit:Exit |process_kprobe:Kprobe |process_tracepoint:Tracepoint"
    " |process_loader:Loader |process_uprobe:Uprobe |process_lsm:Lsm |process_usdt:Usdt"
    f" node_name:string time:{_TIME} cluster_name:string node_labels:map",
    "Exec": _WHO,
    "Exit": f"{_WHO} signal:string status:uint32 time:{_TIME}",
    "Kprobe": f"{_POLICY} function_name:string return:Argument return_action:Action kernel_stack_trace:Frame*"
    " user_stack_trace:Frame* data:Argument*",
    "Tracepoint": f"{_POLICY} subsys:string event:string",
    "Uprobe": f"{_POLICY} path:string symbol:string offset:uint64 ref_ctr_offset:uint64 data:Argument*",
    "Usdt": f"{_POLICY} path:string provider:string name:string flags:string",
    "Lsm": f"{_POLICY} function_name:string ima_hash:string",
    "Loader": f"{_WHO} path:string buildid:bytes",
    "Process": f"exec_id:string pid:{_UINT} uid:{_UINT} cwd:string binary:string arguments:string flags:string"
    f" start_time:{_TIME} auid:{_UINT} pod:Pod docker:string parent_exec_id:string refcnt:uint32 cap:Capabilities"
    f" ns:Namespaces tid:{_UINT} process_credentials:Credentials binary_properties:Properties in_init_tree:{_BOOL}",
    "Pod": "namespace:string name:string uid:string container:Container pod_labels:map workload:string"
    " workload_kind:string pod_annotations:map",
    "Container": f"id:string name:string image:Image start_time:{_TIME} pid:{_UINT} maybe_exec_probe:bool",
    "Image": "id:string name:string",
    "Capabilities": "permitted:Capability* effective:Capability* inheritable:Capability*",
    "Namespace": "inum:uint32 is_host:bool",
    "Namespaces": "uts:Namespace ipc:Namespace mnt:Namespace pid:Namespace pid_for_children:Namespace net:Namespace"
    " time:Namespace time_for_children:Namespace cgroup:Namespace user:Namespace",
    "UserNamespace": f"level:{_INT} uid:{_UINT} gid:{_UINT} ns:Namespace",
    "Credentials": f"{_IDS} securebits:SecureBit* caps:Capabilities user_ns:UserNamespace",
    "Properties": f"setuid:{_UINT} setgid:{_UINT} privileges_changed:Privilege* file:BinaryFile",
    "BinaryFile": "inode:Inode path:string",
    "Inode": f"number:uint64 links:{_UINT}",
    "Frame": "address:uint64 offset:uint64 symbol:string module:string",
    "Argument": f"{' '.join(f'|{one}' for one in _ARGUMENTS.split())} label:string",
    "Sock": "family:string type:string protocol:string mark:uint32 priority:uint32 saddr:string daddr:string"
    " sport:uint32 dport:uint32 cookie:uint64 state:string",
    "Skb": "hash:uint32 len:uint32 priority:uint32 mark:uint32 saddr:string daddr:string sport:uint32 dport:uint32"
    " proto:uint32 sec_path_len:uint32 sec_path_olen:uint32 protocol:string family:string",
    "Sockaddr": "family:string addr:string port:uint32",
    "SockaddrUn": "family:string path:string",
    "Device": "name:string",
    "File": "mount:string path:string flags:string permission:string",
    "Binprm": "path:string flags:string permission:string",
    "Truncated": "bytes_arg:bytes orig_size:uint64",
    "Cap": f"value:{_INT} name:string",
    "Program": _PROGRAM,
    "PerfEvent": "KprobeFunc:string Type:string Config:uint64 ProbeOffset:uint64",
    "Map": "MapType:string KeySize:uint32 ValueSize:uint32 MaxEntries:uint32 MapName:string",
    "Error": "Message:string",
    "Call": "id:uint32 abi:string",
    "Module": f"name:string signature_ok:{_BOOL} tainted:Taint*",
}
