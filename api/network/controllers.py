"""All controllers of the Network API, in one place."""

from __future__ import annotations

from typing import Any

from api.common.operations import Controller
from api.network.agent_schedulers import AgentSchedulersController
from api.network.agents import AgentsController, AvailabilityZonesController, IpAvailabilityController
from api.network.auto_allocated_topology import AutoAllocatedTopologyController
from api.network.default_security_group_rules import DefaultSecurityGroupRulesController
from api.network.extensions import ExtensionsController
from api.network.floating_ips import FloatingIpsController, PortForwardingsController
from api.network.networks import NetworksController
from api.network.port_bindings import PortBindingsController
from api.network.port_trace import PortTraceController
from api.network.ports import PortsController
from api.network.qos import (
    BandwidthLimitRulesController,
    DscpMarkingRulesController,
    MinimumBandwidthRulesController,
    MinimumPacketRateRulesController,
    PacketRateLimitRulesController,
    QosPoliciesController,
    QosRuleTypesController,
)
from api.network.quotas import QuotasController
from api.network.rbac_policies import RbacPoliciesController
from api.network.routers import RoutersController
from api.network.security_group_rules import SecurityGroupRulesController
from api.network.security_groups import AddressGroupsController, SecurityGroupsController
from api.network.subnet_pools import AddressScopesController, SubnetPoolsController
from api.network.subnets import SubnetsController
from api.network.tags import TagsController
from api.network.versions import VersionsController

CONTROLLERS: tuple[type[Controller], ...] = (
    VersionsController,
    ExtensionsController,
    NetworksController,
    SubnetsController,
    SubnetPoolsController,
    AddressScopesController,
    PortsController,
    PortBindingsController,
    PortTraceController,
    SecurityGroupsController,
    SecurityGroupRulesController,
    DefaultSecurityGroupRulesController,
    AddressGroupsController,
    RoutersController,
    FloatingIpsController,
    PortForwardingsController,
    QosPoliciesController,
    BandwidthLimitRulesController,
    DscpMarkingRulesController,
    MinimumBandwidthRulesController,
    MinimumPacketRateRulesController,
    PacketRateLimitRulesController,
    QosRuleTypesController,
    RbacPoliciesController,
    AutoAllocatedTopologyController,
    QuotasController,
    TagsController,
    AgentsController,
    AgentSchedulersController,
    AvailabilityZonesController,
    IpAvailabilityController,
)


def all_controllers(services: Any) -> list[Controller]:
    """One object of each, made with what the API has."""
    return [controller(services) for controller in CONTROLLERS]
