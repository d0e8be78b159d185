"""
The orchestrator: brings admitted jobs to workers, and what workers sign to the chain.

It holds no key that opens anything: payloads and results pass through it sealed.
"""

from orchestrator.service.admission import AdmissionPolicy
from orchestrator.service.http import service_app
from orchestrator.service.orchestrator import Orchestrator
from orchestrator.service.settings import OrchestratorSettings
from orchestrator.service.steps import FailPoint, Moment, Step
from orchestrator.service.summary import RunSummary, StopEvent

__all__ = [
    "AdmissionPolicy",
    "FailPoint",
    "Moment",
    "Orchestrator",
    "OrchestratorSettings",
    "RunSummary",
    "Step",
    "StopEvent",
    "service_app",
]
