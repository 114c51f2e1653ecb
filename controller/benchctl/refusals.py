"""Why a vendor did not give a server, by the words of its answer.

Codes come first where there are any; where a vendor has only text, the text is matched here and nowhere else.
``tests/cases/refusals.yml`` holds recorded messages. A message is first the vendor's (or its Pulumi provider's) own
words; :func:`classify` gives nothing for one that no rule knows, and the caller then says so.
"""

from __future__ import annotations

import re
from enum import StrEnum


class Refusal(StrEnum):
    """Why there was no server."""

    QUOTA = "quota"
    STOCK = "stock"
    DEPRECATED = "deprecated"
    NOT_OFFERED = "not_offered"
    ACCOUNT = "account"
    THROTTLED = "throttled"
    MEMORY = "memory"
    OUTAGE = "outage"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"


REFUSAL_MEANINGS: dict[Refusal, str] = {
    Refusal.QUOTA: "the account's limit is too low: ask the vendor to raise it",
    Refusal.STOCK: "sold out there at that time: try again, or another zone or region",
    Refusal.DEPRECATED: "the vendor no longer rents it to anyone",
    Refusal.NOT_OFFERED: "not offered in the place, or with the settings, that were tried",
    Refusal.ACCOUNT: "the account may not: login, permission or credit",
    Refusal.THROTTLED: "too many calls to the vendor at once",
    Refusal.OUTAGE: "the vendor's API answered with an error of its own, or not at all",
    Refusal.TIMEOUT: "the server was not there in time",
    Refusal.INTERRUPTED: "the vendor took the spot server back",
    Refusal.MEMORY: "too little memory for the benchmark to start",
}

_RULES: tuple[tuple[Refusal, str], ...] = (
    # Spare Cores' inspector, when a server has less memory than the task's minimum (exit code -2)
    (Refusal.MEMORY, r"Task doesn't need to run on this instance"),
    # how often; before the quotas, because GCP calls a rate a quota, too
    (Refusal.THROTTLED, r"\bRequestLimitExceeded\b|Rate Limit Exceeded|\brate_?limit_?exceeded\b"),
    (Refusal.THROTTLED, r"\bRATE_LIMIT_EXCEEDED\b"),
    (Refusal.THROTTLED, r"\bTooManyRequests\b|429 Too Many Requests|\b\w*RequestsThrottled\b"),
    (Refusal.THROTTLED, r"\bThrottling(?:Exception)?:"),
    (Refusal.THROTTLED, r"Quota exceeded for quota metric '[^']*' and limit '[^']* per (?:minute|second)"),
    (Refusal.THROTTLED, r"\bstatus=429\b|\bRetryableError(?:DueToAnotherOperation)?\b"),
    # what an account may have: AWS codes; GCP's sentence; Azure's OperationNotAllowed means other things besides, so
    # that the word has to stand by it; Hetzner's and UpCloud's codes
    (Refusal.QUOTA, r"\b(?:VcpuLimitExceeded|InstanceLimitExceeded|MaxSpotInstanceCountExceeded)\b"),
    (Refusal.QUOTA, r"\bPendingVerification\b"),
    (Refusal.QUOTA, r"\b(?:Address|KeyPair|SecurityGroup|Vpc|Volume|MaxIOPS)LimitExceeded\b"),
    (Refusal.QUOTA, r"Quota '[^']+' exceeded|\b(?:Resource)?QuotaExceeded\b|QUOTA_EXCEEDED|, quotaExceeded\b"),
    (Refusal.QUOTA, r"exceeding (?:approved|quota) [\w. -]*quota|exceeding quota limits|\bPublicIPCountLimitReached\b"),
    (Refusal.QUOTA, r"\bresource_limit_exceeded\b|\b[A-Z0-9_]+_LIMIT_REACHED\b"),
    (Refusal.QUOTA, r"not eligible for Free Tier"),
    # no longer rented in that one place: Hetzner retires types location by location
    (Refusal.NOT_OFFERED, r'is unavailable in "[^"]+" and can no longer be ordered'),
    # no longer rented to anyone; before NOT_OFFERED, whose words are near
    (Refusal.DEPRECATED, r"is obsolete and cannot be used|can no longer be ordered|has been retired"),
    # sold out: AWS, GCP, Azure, Hetzner, UpCloud
    (Refusal.STOCK, r"\bInsufficient(?:Instance|Host|ReservedInstance)?Capacity\b|\bUnfulfillableCapacity\b"),
    (Refusal.STOCK, r"\bSpotMaxPriceTooLow\b|\bcapacity-(?:oversubscribed|not-available)\b"),
    (Refusal.STOCK, r"ZONE_RESOURCE_POOL_EXHAUSTED|does not have enough resources available|state:\s?STOCKOUT"),
    (Refusal.STOCK, r"VM instance (?:with \S+ \S+ accelerator\(s\) )?is currently unavailable in the \S+ zone"),
    (Refusal.STOCK, r"\b(?:Zonal)?AllocationFailed\b|\bOverconstrained(?:Zonal)?AllocationRequest\b"),
    (Refusal.STOCK, r"(?:SkuNotAvailable|azureskunotavailable)[\s\S]*Capacity Restrictions"),
    (Refusal.STOCK, r"failed for Capacity Restrictions"),
    (Refusal.STOCK, r"\(resource_unavailable\b|\bplacement_error\b|error during placement|server location disabled"),
    (Refusal.STOCK, r"\b[A-Z_]+_RESOURCES_UNAVAILABLE\b"),
    # not there, or not so
    (Refusal.NOT_OFFERED, r"(?:api error |\(|Code=\"|: )Unsupported\b|\bInvalidInstanceType\b|for InstanceType\b"),
    (Refusal.NOT_OFFERED, r"[Mm]achine type with name '[^']+' does not exist|\bSkuNotAvailable\b|azureskunotavailable"),
    (Refusal.NOT_OFFERED, r"(?:machineTypes|acceleratorTypes|diskTypes)/[\w.-]+' was not found"),
    (Refusal.NOT_OFFERED, r"disk type cannot be used by|features are not compatible for creating instance"),
    (Refusal.NOT_OFFERED, r"architecture \(\w+\) is not compatible"),
    (Refusal.NOT_OFFERED, r"[Aa]rchitecture '?[\w,]+'? .*(?:not match|does not support)"),
    (Refusal.NOT_OFFERED, r"is not available in the current region|cannot boot Hypervisor Generation"),
    (Refusal.NOT_OFFERED, r"\bNotAvailableForSubscription\b|\bLocationNotAvailableFor|\bRequestDisallowedByAzure\b"),
    # where an organisation lets its people make things: a policy of locations (or of sizes, which are others elsewhere)
    (Refusal.NOT_OFFERED, r"violates constraint '?constraints/gcp\.resourceLocations\b|\bRequestDisallowedByPolicy\b"),
    (Refusal.NOT_OFFERED, r"does not support availability zones|\bAvailabilityZoneNotSupported\b"),
    (Refusal.NOT_OFFERED, r"provided for the VM size is not valid|The zone\(s\) '[^']*' for resource"),
    (Refusal.NOT_OFFERED, r"VM size only supports a CPU Architecture of|does not support the storage account type"),
    (Refusal.NOT_OFFERED, r"is not supported for creation of VMs|cannot boot with OS image or disk"),
    (Refusal.NOT_OFFERED, r"(?i)server type \S+ (?:not found|is unavailable)|unsupported location for server type"),
    (Refusal.NOT_OFFERED, r"location '\S+' not found|\b(?:PLAN|ZONE|TEMPLATE)_(?:NOT_FOUND|INVALID)\b"),
    (Refusal.NOT_OFFERED, r"has no default (?:subnet|VPC)\b|no matching EC2 (?:VPC|Subnet) found|AWS has no image"),
    # who asks
    (Refusal.ACCOUNT, r"\b(?:InvalidClientTokenId|ExpiredToken|UnauthorizedOperation|AuthFailure|OptInRequired)\b"),
    (Refusal.ACCOUNT, r"\bSignatureDoesNotMatch\b|\bError: Blocked\b|api error Blocked\b"),
    (Refusal.ACCOUNT, r"Invalid credentials configured"),
    (Refusal.ACCOUNT, r"(?i)no valid credential sources|could not find default credentials|unable to validate aws "),
    (Refusal.ACCOUNT, r"Your default credentials were not found|Unable to locate credentials|\binvalid_grant\b"),
    (Refusal.ACCOUNT, r"\baccessNotConfigured\b|\bSERVICE_DISABLED\b|\bPERMISSION_DENIED\b"),
    (Refusal.ACCOUNT, r"Required '[\w.]+' permission"),
    (Refusal.ACCOUNT, r"\bBILLING_DISABLED\b|requires billing to be enabled|[Bb]illing account .*(?:disabled|closed)"),
    (Refusal.ACCOUNT, r"\b(?:Linked)?AuthorizationFailed\b|\bAADSTS\d+|\b(?:Invalid|Expired)AuthenticationToken\b"),
    (Refusal.ACCOUNT, r"\bSubscriptionNotFound\b|\bReadOnlyDisabledSubscription\b|\bMissingSubscriptionRegistration\b"),
    (Refusal.ACCOUNT, r"A Subscription ID must be configured|\((?:unauthorized|token_readonly|forbidden)\b"),
    (Refusal.ACCOUNT, r"\bINSUFFICIENT_CREDITS\b|\bAUTHENTICATION_FAILED\b|\bACCOUNT_(?:LOCKED|SUSPENDED)\b"),
    (Refusal.ACCOUNT, r"\b[A-Z]+_FORBIDDEN\b"),
    # AWS: more of its codes (EC2's API reference, "Error codes"), and what our program says of a place without a
    # default network or an image
    (Refusal.STOCK, r"\bInsufficient(?:Address|Volume)Capacity\b"),
    (Refusal.NOT_OFFERED, r"has no default (?:VPC|subnet)|has no image \S+ for"),
    (Refusal.NOT_OFFERED, r"does not match the architecture '[^']*' of the specified AMI"),
    (Refusal.ACCOUNT, r"\bAccessDenied(?:Exception)?\b|\b(?:RequestExpired|UnrecognizedClientException)\b"),
    (Refusal.THROTTLED, r"\bThrottling(?:Exception)?\b"),
    (Refusal.OUTAGE, r"api error (?:InternalError|InternalFailure|Unavailable|ServiceUnavailable)\b"),
    # UpCloud
    (Refusal.NOT_OFFERED, r"Invalid plan: expected plan to be one of|Invalid zone: expected zone to be one of"),
    (Refusal.ACCOUNT, r"Authentication credentials not defined"),
    (Refusal.THROTTLED, r"\bRATE_LIMITED\b"),
    (Refusal.OUTAGE, r"\bSERVICE_(?:UNAVAILABLE|ERROR)\b"),
    # taken back
    (Refusal.INTERRUPTED, r"\bServer\.SpotInstance(?:Termination|Shutdown)\b|\bcompute\.instances\.preempted\b"),
    (Refusal.INTERRUPTED, r"was preempted"),
    # not in time
    (Refusal.TIMEOUT, r"\b(?:OSProvisioning|VMStart|VMAgentStatusCommunication)\w*(?:TimedOut|Timeout)\b"),
    (Refusal.TIMEOUT, r"timeout while waiting for |context deadline exceeded|\(timeout\b|\bDEADLINE_EXCEEDED\b"),
    # the vendor's own trouble, or none of its words at all; last, because codes say more than a status of 500 does.
    # Only what a vendor's client says of its API: SSH to a server has a connection that is refused, too
    (Refusal.OUTAGE, r"StatusCode: 5\d\d\b|Status=5\d\d\b|RESPONSE 5\d\d\b|googleapi: Error 5\d\d\b|\bstatus=5\d\d\b"),
    (Refusal.OUTAGE, r"api error (?:InternalError|InternalFailure|ServiceUnavailable|Unavailable)\b|\bbackendError\b"),
    (Refusal.OUTAGE, r"\((?:InternalError|ServiceUnavailable|Unavailable|InternalFailure)\) when calling"),
    (Refusal.OUTAGE, r"\b(?:InternalServerError|GatewayTimeout|ServerTimeout)\b|503 SERVICE UNAVAILABLE"),
    (Refusal.OUTAGE, r"\((?:service_error|server_error|unknown_error|unavailable|maintenance)\b"),
    (Refusal.OUTAGE, r"\((?:bad_gateway|gateway_timeout)\b"),
    (Refusal.OUTAGE, r"dial tcp\b.*(?:connection refused|no such host|i/o timeout|unreachable|server misbehaving)"),
    (Refusal.OUTAGE, r"TLS handshake timeout|tls: failed to verify|x509: |CERTIFICATE_VERIFY_FAILED|https?://\S+: EOF"),
    (Refusal.OUTAGE, r"Max retries exceeded with url|Could not connect to the endpoint URL"),
    (Refusal.OUTAGE, r"Connection reset by peer.*https://"),
)  # fmt: skip
_COMPILED = tuple((refusal, re.compile(pattern)) for refusal, pattern in _RULES)

_NOISE = (
    (re.compile(r"https response error StatusCode: (\d+), RequestID: [\w-]+, "), ""),  # AWS
    (re.compile(r"\d+ errors? occurred:\s*\*?\s*"), ""),  # providers bridged from Terraform
    (re.compile(r"^\s*\+\s+azure-native:\S+ \S+ \*\*creating failed\*\* error: "), ""),
    (re.compile(r"(\((?:[a-z_]+)), [0-9a-f]{10,}\)"), r"\1)"),  # Hetzner's correlation
    (re.compile(r"The sizes available in the current region are:[\s\S]*"), ""),
    (
        re.compile(
            r"Operation could not be completed as it results in |Additional details - Deployment Model: [\w ]+, "
        ),
        "",
    ),
    (re.compile(r"Setup Alerts when Quota[\s\S]*|Learn more at[\s\S]*|Please visit http[\s\S]*"), ""),
)
"""What only the vendor's support can read, or nobody."""

LONGEST = 240
"""Characters of a message that a table shows."""


def classify(message: str | None) -> Refusal | None:
    """Why there was no server; nothing for a message that no rule knows."""
    if not message:
        return None
    return next((refusal for refusal, pattern in _COMPILED if pattern.search(message)), None)


def shortened(message: str | None) -> str:
    """The message in one line, without request numbers, lists and addresses, and not too long for a table."""
    text = message or ""
    for pattern, kept in _NOISE:
        text = pattern.sub(kept, text)
    text = " ".join(text.split()).rstrip(" ,")
    return text if len(text) <= LONGEST else text[: LONGEST - 3].rstrip() + "..."
