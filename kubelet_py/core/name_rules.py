"""Which texts are names in Kubernetes: DNS labels and subdomains, qualified names, ports, paths.

Each `check_*` returns what is wrong with a value, in words that say what would be right, or "" when nothing is.

Upstream counterpart: apimachinery pkg/util/validation.
"""

import ipaddress
import re
from typing import Final

DNS_LABEL_MAX_LENGTH: Final = 63
DNS_SUBDOMAIN_MAX_LENGTH: Final = 253
MAX_ID: Final = 2**31 - 1

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_LABEL_PATTERN = re.compile(_LABEL)
_SUBDOMAIN_PATTERN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_SEARCH_LABEL = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SEARCH_PATTERN = re.compile(rf"{_SEARCH_LABEL}(\.{_SEARCH_LABEL})*")
_QUALIFIED_PATTERN = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_ENV_NAME_PATTERN = re.compile(r"[ -<>-~]+")
_CONFIG_KEY_PATTERN = re.compile(r"[-._a-zA-Z0-9]+")
_PORT_NAME_PATTERN = re.compile(r"[-a-z0-9]{1,15}")
_SYSCTL_PATTERN = re.compile(r"([a-z0-9][-_a-z0-9]*[./])*[a-z0-9][-_a-z0-9]*")
_HEADER_PATTERN = re.compile(r"[-A-Za-z0-9]+")
_LABEL_VALUE_PATTERN = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")

DNS_LABEL_MESSAGE: Final = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
DNS_SUBDOMAIN_MESSAGE: Final = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
DNS_SEARCH_MESSAGE: Final = (
    "a search domain is '.', or a lowercase RFC 1123 subdomain whose labels may also begin with '_' and have it inside "
    "(e.g. '_tcp.example.com')"
)


def check_dns_label(value: str) -> str:
    """A lower-case RFC 1123 label of at most 63 characters."""
    if len(value) > DNS_LABEL_MAX_LENGTH:
        return f"must be no more than {DNS_LABEL_MAX_LENGTH} characters"
    return "" if _LABEL_PATTERN.fullmatch(value) else DNS_LABEL_MESSAGE


def check_dns_subdomain(value: str) -> str:
    """Labels with dots between them, at most 253 characters."""
    if len(value) > DNS_SUBDOMAIN_MAX_LENGTH:
        return f"must be no more than {DNS_SUBDOMAIN_MAX_LENGTH} characters"
    return "" if _SUBDOMAIN_PATTERN.fullmatch(value) else DNS_SUBDOMAIN_MESSAGE


def check_dns_search(value: str) -> str:
    """A search domain: ".", or a subdomain whose labels may have underscores, with or without a dot at its end."""
    domain = value.removesuffix(".")
    if len(domain) > DNS_SUBDOMAIN_MAX_LENGTH:
        return f"must be no more than {DNS_SUBDOMAIN_MAX_LENGTH} characters"
    return "" if value == "." or _SEARCH_PATTERN.fullmatch(domain) else DNS_SEARCH_MESSAGE


def check_qualified_name(value: str) -> str:
    """`name` or `prefix/name`, as keys of labels and annotations are."""
    prefix, slash, name = value.rpartition("/")
    if slash and (not prefix or check_dns_subdomain(prefix)):
        return "the prefix part must be a DNS subdomain such as 'example.com'"
    if not name or len(name) > DNS_LABEL_MAX_LENGTH or not _QUALIFIED_PATTERN.fullmatch(name):
        return (
            "the name part must be 1 to 63 characters, alphanumeric, '-', '_' or '.', and must start and end with an "
            "alphanumeric character"
        )
    return ""


def check_label_value(value: str) -> str:
    """At most 63 characters, empty allowed."""
    if len(value) <= DNS_LABEL_MAX_LENGTH and _LABEL_VALUE_PATTERN.fullmatch(value):
        return ""
    return (
        "must be at most 63 characters, alphanumeric, '-', '_' or '.', and must start and end with an alphanumeric "
        "character, or be empty"
    )


def check_env_name(value: str) -> str:
    """Any printable ASCII characters other than '='."""
    return "" if _ENV_NAME_PATTERN.fullmatch(value) else "must be printable ASCII characters other than '='"


def check_config_key(value: str) -> str:
    """A key of a ConfigMap or Secret."""
    if len(value) <= DNS_SUBDOMAIN_MAX_LENGTH and _CONFIG_KEY_PATTERN.fullmatch(value) and value not in (".", ".."):
        return ""
    return "must be 1 to 253 characters, alphanumeric, '-', '_' or '.', and neither '.' nor '..'"


def check_port_number(value: int) -> str:
    """1 to 65535."""
    return "" if 1 <= value <= 65535 else "must be between 1 and 65535, inclusive"


def check_port_name(value: str) -> str:
    """An IANA service name: at most 15 characters, at least one letter."""
    shaped = _PORT_NAME_PATTERN.fullmatch(value) and "--" not in value and value[0] != "-" and value[-1] != "-"
    if shaped and any(c.isalpha() for c in value):
        return ""
    return "must be at most 15 lower case alphanumeric characters or single inner '-', with at least one letter"


def check_id(value: int) -> str:
    """A user or group id."""
    return "" if 0 <= value <= MAX_ID else f"must be between 0 and {MAX_ID}, inclusive"


def check_ip(value: str) -> str:
    """An IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
    return ""


def check_path_inside(value: str) -> str:
    """A relative path that does not leave its directory."""
    if value.startswith("/"):
        return "must be a relative path"
    return "must not contain '..'" if ".." in value.split("/") else ""


def is_sysctl_name(value: str) -> bool:
    """Parts with dots or slashes between them."""
    return len(value) <= DNS_SUBDOMAIN_MAX_LENGTH and _SYSCTL_PATTERN.fullmatch(value) is not None


def is_http_header_name(value: str) -> bool:
    """A token of letters, digits and hyphens."""
    return _HEADER_PATTERN.fullmatch(value) is not None
