-- One server, two databases, run once when the volume is new; the owner is POSTGRES_USER.
CREATE DATABASE mlflow;
CREATE DATABASE prefect;
