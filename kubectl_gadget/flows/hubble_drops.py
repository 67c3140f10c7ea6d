"""Maps the kernel's drop reasons to Hubble's, which its client prints before DROPPED and filters by.

Source of the numbers: `enum DropReason` of Hubble's flow.proto, which are Cilium's own. The trap: a subtype of 0 is
printed as `Success`, and a reader whose version lacks a name rejects the line. So only names of Cilium 1.14 are used,
and a reason that fits none gets a number that Cilium does not use. The summary contains the kernel's reason.
"""

from typing import NamedTuple

from kubectl_gadget.flows.flow import POLICY_DENIED


class HubbleDrop(NamedTuple):
    """A member of `enum DropReason`, and the subtype of the event."""

    name: str
    sub_type: int


_UNKNOWN = HubbleDrop("DROP_REASON_UNKNOWN", 255)
_DENIED = HubbleDrop(POLICY_DENIED, 133)
_KERNEL = {
    # A rule or program that somebody installed rejects it; or a policy rejected the call.
    HubbleDrop("POLICY_DENY", 181): "NETFILTER_DROP SOCKET_FILTER BPF_CGROUP_EGRESS SECURITY_HOOK XFRM_POLICY"
    " TC_EGRESS TC_INGRESS XDP TAP_FILTER TAP_TXFILTER",
    HubbleDrop("SOCKET_LOOKUP_FAILED", 178): "NO_SOCKET",
    HubbleDrop("INVALID_SOURCE_IP", 132): "IP_RPFILTER IP_LOCAL_SOURCE IP_INVALID_SOURCE IP_LOCALNET",
    HubbleDrop("UNKNOWN_L3_TARGET_ADDRESS", 150): "IP_INADDRERRORS IP_INVALID_DEST OTHERHOST UNICAST_IN_L2_MULTICAST",
    HubbleDrop("FIB_LOOKUP_FAILED", 169): "IP_OUTNOROUTES IP_INNOROUTES",
    HubbleDrop("STALE_OR_UNROUTABLE_IP", 151): "NEIGH_CREATEFAIL NEIGH_FAILED NEIGH_DEAD NEIGH_HH_FILLFAIL",
    HubbleDrop("ERROR_WHILE_CORRECTING_L3_CHECKSUM", 153): "IP_CSUM",
    HubbleDrop("ERROR_WHILE_CORRECTING_L4_CHECKSUM", 154): "TCP_CSUM UDP_CSUM ICMP_CSUM SKB_CSUM",
    HubbleDrop("UNKNOWN_L4_PROTOCOL", 142): "IP_NOPROTO INVALID_PROTO",
    HubbleDrop("UNSUPPORTED_L3_PROTOCOL", 139): "UNHANDLED_PROTO IPV6DISABLED",
    HubbleDrop("INVALID_IPV6_EXTENSION_HEADER", 156): "IPV6_BAD_EXTHDR",
    HubbleDrop("IP_FRAGMENTATION_NOT_SUPPORTED", 157): "PKT_TOO_BIG",
    HubbleDrop("FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND", 175): "FRAG_REASM_TIMEOUT FRAG_TOO_FAR",
    HubbleDrop("INVALID_VNI", 183): "VXLAN_VNI_NOT_FOUND",
    HubbleDrop("INVALID_SOURCE_MAC", 130): "MAC_INVALID_SOURCE",
    HubbleDrop("FORBIDDEN_ICMPV6_MESSAGE", 176): "IPV6_NDISC_FRAG IPV6_NDISC_HOP_LIMIT IPV6_NDISC_BAD_CODE"
    " IPV6_NDISC_BAD_OPTIONS IPV6_NDISC_NS_OTHERHOST",
    HubbleDrop("TTL_EXCEEDED", 196): "TCP_MINTTL",
    HubbleDrop("INVALID_PACKET_DROPPED", 134): "PKT_TOO_SMALL HDR_TRUNC IP_INHDR DUP_FRAG TCP_FLAGS TCP_AUTH_HDR"
    " TCP_MD5NOTFOUND TCP_MD5UNEXPECTED TCP_MD5FAILURE TCP_AONOTFOUND TCP_AOUNEXPECTED TCP_AOKEYNOTFOUND TCP_AOFAILURE"
    " TCP_OVERWINDOW TCP_RFC7323_PAWS TCP_RFC7323_PAWS_ACK TCP_RFC7323_TW_PAWS TCP_RFC7323_TSECR TCP_INVALID_SEQUENCE"
    " TCP_INVALID_END_SEQUENCE TCP_INVALID_ACK_SEQUENCE TCP_INVALID_SYN TCP_TOO_OLD_ACK TCP_ACK_UNSENT_DATA"
    " VXLAN_INVALID_HDR IP_TUNNEL_ECN",
}
_BY_REASON = {reason: drop for drop, reasons in _KERNEL.items() for reason in reasons.split()}
REASONS = tuple(_BY_REASON)
"""The kernel's reasons that have a number there."""


def hubble_drop(reason: str, denied: bool) -> HubbleDrop:
    """`reason` is the kernel's word without its prefix; `denied`: a known network policy rejected it."""
    return _DENIED if denied or reason == POLICY_DENIED else _BY_REASON.get(reason, _UNKNOWN)
