-- A database of schema 0001, as the first release left it: run by SQLite and by Postgres alike.
BEGIN TRANSACTION;
CREATE TABLE accounts (
	job_id VARCHAR(64) NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (job_id)
);
INSERT INTO "accounts" VALUES('0001aaaaaaaaaaaaaaaaaaaaaaaaaaaa','{"job_id":"0001aaaaaaaaaaaaaaaaaaaaaaaaaaaa","since":1001.0,"later":[],"above":[],"base":[],"base_above":[]}');
INSERT INTO "accounts" VALUES('0003aaaaaaaaaaaaaaaaaaaaaaaaaaaa','{"job_id":"0003aaaaaaaaaaaaaaaaaaaaaaaaaaaa","since":1003.0,"later":[],"above":[],"base":[],"base_above":[]}');
CREATE TABLE artifacts (
	id VARCHAR(64) NOT NULL, 
	owner VARCHAR(256) NOT NULL, 
	size BIGINT NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	created_at FLOAT NOT NULL, 
	labels TEXT NOT NULL, 
	PRIMARY KEY (id, owner)
);
INSERT INTO "artifacts" VALUES('ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff','ana',5,'ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff',1000.0,'{"of":"x"}');
CREATE TABLE counters (
	name VARCHAR(16) NOT NULL, 
	value BIGINT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "counters" VALUES('seq',6);
INSERT INTO "counters" VALUES('order',3);
CREATE TABLE dags (
	name VARCHAR(256) NOT NULL, 
	version INTEGER NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (name, version)
);
CREATE TABLE history (
	"key" VARCHAR(512) NOT NULL, 
	place BIGINT NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY ("key")
);
INSERT INTO "history" VALUES('name/research/ana/job-2',500000,'{"key":"name/research/ana/job-2","runs":[7.5,9.0],"scatter":[]}');
INSERT INTO "history" VALUES('queue/research',500001,'{"key":"queue/research","runs":[],"scatter":[0.25]}');
CREATE TABLE jobs (
	id VARCHAR(64) NOT NULL, 
	order_no BIGINT NOT NULL, 
	owner VARCHAR(256) NOT NULL, 
	"group" VARCHAR(256) NOT NULL, 
	queue VARCHAR(256) NOT NULL, 
	kind VARCHAR(32) NOT NULL, 
	phase VARCHAR(32) NOT NULL, 
	name VARCHAR(256) NOT NULL, 
	search VARCHAR(512) NOT NULL, 
	submitted_at FLOAT NOT NULL, 
	ended_at FLOAT, 
	body TEXT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (order_no)
);
INSERT INTO "jobs" VALUES('0001aaaaaaaaaaaaaaaaaaaaaaaaaaaa',1,'ana','research','research','batch','Queued','job-1','job-1 0001aaaaaaaaaaaaaaaaaaaaaaaaaaaa',1001.0,NULL,'{"id":"0001aaaaaaaaaaaaaaaaaaaaaaaaaaaa","name":"job-1","owner":"ana","group":"research","queue":"research","kind":"batch","gang":{"pod_sets":[{"role":"worker","count":2,"resources":{"amounts":[["cpu",1500],["memory",2147483648],["nvidia.com/gpu",1]]},"min_count":null,"ends":"required","node_labels":{"gpu-model":"a100"},"cluster":null,"tolerations":[],"can_grow":false}]},"work":{"command":["python","train.py"],"image":null,"env":{"A":"1"},"workdir":null,"code":null,"inputs":[],"outputs":[{"name":"model","path":"model.pt","is_optional":false}],"framework":"none","sidecar":true,"grace_s":30.0},"submitted_at":1001.0,"order":1,"priority":0,"timeout_s":null,"retries":0,"after":[],"cluster":null,"labels":{"team":"x"},"phase":"Queued","reason":"","attempts":0,"failures":0,"failed_launches":0,"cancel_requested":false,"not_before":0.0,"avoid_nodes":[],"retry_of":null,"started_at":null,"ended_at":null,"exit_code":null,"preemptible":null}');
INSERT INTO "jobs" VALUES('0002aaaaaaaaaaaaaaaaaaaaaaaaaaaa',2,'ana','research','research','batch','Cancelled','job-2','job-2 0002aaaaaaaaaaaaaaaaaaaaaaaaaaaa',1002.0,1010.0,'{"id":"0002aaaaaaaaaaaaaaaaaaaaaaaaaaaa","name":"job-2","owner":"ana","group":"research","queue":"research","kind":"batch","gang":{"pod_sets":[{"role":"worker","count":2,"resources":{"amounts":[["cpu",1500],["memory",2147483648],["nvidia.com/gpu",1]]},"min_count":null,"ends":"required","node_labels":{"gpu-model":"a100"},"cluster":null,"tolerations":[],"can_grow":false}]},"work":{"command":["python","train.py"],"image":null,"env":{"A":"1"},"workdir":null,"code":null,"inputs":[],"outputs":[{"name":"model","path":"model.pt","is_optional":false}],"framework":"none","sidecar":true,"grace_s":30.0},"submitted_at":1002.0,"order":2,"priority":0,"timeout_s":null,"retries":0,"after":[],"cluster":null,"labels":{"team":"x"},"phase":"Cancelled","reason":"cancelled by ana","attempts":0,"failures":0,"failed_launches":0,"cancel_requested":true,"not_before":0.0,"avoid_nodes":[],"retry_of":null,"started_at":null,"ended_at":1010.0,"exit_code":null,"preemptible":null}');
INSERT INTO "jobs" VALUES('0003aaaaaaaaaaaaaaaaaaaaaaaaaaaa',3,'ana','research','research','batch','Queued','job-3','job-3 0003aaaaaaaaaaaaaaaaaaaaaaaaaaaa',1003.0,NULL,'{"id":"0003aaaaaaaaaaaaaaaaaaaaaaaaaaaa","name":"job-3","owner":"ana","group":"research","queue":"research","kind":"batch","gang":{"pod_sets":[{"role":"worker","count":2,"resources":{"amounts":[["cpu",1500],["memory",2147483648],["nvidia.com/gpu",1]]},"min_count":null,"ends":"required","node_labels":{"gpu-model":"a100"},"cluster":null,"tolerations":[],"can_grow":false}]},"work":{"command":["python","train.py"],"image":null,"env":{"A":"1"},"workdir":null,"code":null,"inputs":[],"outputs":[{"name":"model","path":"model.pt","is_optional":false}],"framework":"none","sidecar":true,"grace_s":30.0},"submitted_at":1003.0,"order":3,"priority":0,"timeout_s":null,"retries":0,"after":[],"cluster":null,"labels":{"team":"x"},"phase":"Queued","reason":"","attempts":0,"failures":0,"failed_launches":0,"cancel_requested":false,"not_before":0.0,"avoid_nodes":[],"retry_of":null,"started_at":null,"ended_at":null,"exit_code":null,"preemptible":null}');
CREATE TABLE attempts (
	job_id VARCHAR(64) NOT NULL, 
	number INTEGER NOT NULL, 
	phase VARCHAR(32) NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (job_id, number), 
	FOREIGN KEY(job_id) REFERENCES jobs (id) ON DELETE CASCADE
);
CREATE TABLE journal (
	seq BIGINT NOT NULL, 
	at FLOAT NOT NULL, 
	epoch BIGINT NOT NULL, 
	kind VARCHAR(64) NOT NULL, 
	"key" VARCHAR(256) NOT NULL, 
	owner VARCHAR(256) NOT NULL, 
	version INTEGER NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (seq)
);
INSERT INTO "journal" VALUES(1,1000.0,1,'QueuesConfigured','queues','',1,'{"queues":[{"name":"root","parent":null,"weight":1,"priority":0,"guaranteed":{"amounts":[]},"max":{"amounts":[]},"groups":[],"max_jobs":null,"max_pods":null,"clusters":[],"can_borrow":true,"can_reclaim":true,"stops_busy_notebooks":false,"overtaking":0.15,"overtaking_s":900.0,"class_cap_s":86400.0},{"name":"research","parent":"root","weight":1,"priority":0,"guaranteed":{"amounts":[]},"max":{"amounts":[]},"groups":[],"max_jobs":null,"max_pods":null,"clusters":[],"can_borrow":true,"can_reclaim":true,"stops_busy_notebooks":false,"overtaking":0.15,"overtaking_s":900.0,"class_cap_s":86400.0}]}');
INSERT INTO "journal" VALUES(2,1001.0,1,'JobSubmitted','0001aaaaaaaaaaaaaaaaaaaaaaaaaaaa','ana',1,'{"job":{"id":"0001aaaaaaaaaaaaaaaaaaaaaaaaaaaa","name":"job-1","owner":"ana","group":"research","queue":"research","kind":"batch","gang":{"pod_sets":[{"role":"worker","count":2,"resources":{"amounts":[["cpu",1500],["memory",2147483648],["nvidia.com/gpu",1]]},"min_count":null,"ends":"required","node_labels":{"gpu-model":"a100"},"cluster":null,"tolerations":[],"can_grow":false}]},"work":{"command":["python","train.py"],"image":null,"env":{"A":"1"},"workdir":null,"code":null,"inputs":[],"outputs":[{"name":"model","path":"model.pt","is_optional":false}],"framework":"none","sidecar":true,"grace_s":30.0},"submitted_at":1001.0,"order":1,"priority":0,"timeout_s":null,"retries":0,"after":[],"cluster":null,"labels":{"team":"x"},"phase":"Queued","reason":"","attempts":0,"failures":0,"failed_launches":0,"cancel_requested":false,"not_before":0.0,"avoid_nodes":[],"retry_of":null,"started_at":null,"ended_at":null,"exit_code":null,"preemptible":null}}');
INSERT INTO "journal" VALUES(3,1002.0,1,'JobSubmitted','0002aaaaaaaaaaaaaaaaaaaaaaaaaaaa','ana',1,'{"job":{"id":"0002aaaaaaaaaaaaaaaaaaaaaaaaaaaa","name":"job-2","owner":"ana","group":"research","queue":"research","kind":"batch","gang":{"pod_sets":[{"role":"worker","count":2,"resources":{"amounts":[["cpu",1500],["memory",2147483648],["nvidia.com/gpu",1]]},"min_count":null,"ends":"required","node_labels":{"gpu-model":"a100"},"cluster":null,"tolerations":[],"can_grow":false}]},"work":{"command":["python","train.py"],"image":null,"env":{"A":"1"},"workdir":null,"code":null,"inputs":[],"outputs":[{"name":"model","path":"model.pt","is_optional":false}],"framework":"none","sidecar":true,"grace_s":30.0},"submitted_at":1002.0,"order":2,"priority":0,"timeout_s":null,"retries":0,"after":[],"cluster":null,"labels":{"team":"x"},"phase":"Queued","reason":"","attempts":0,"failures":0,"failed_launches":0,"cancel_requested":false,"not_before":0.0,"avoid_nodes":[],"retry_of":null,"started_at":null,"ended_at":null,"exit_code":null,"preemptible":null}}');
INSERT INTO "journal" VALUES(4,1003.0,1,'JobSubmitted','0003aaaaaaaaaaaaaaaaaaaaaaaaaaaa','ana',1,'{"job":{"id":"0003aaaaaaaaaaaaaaaaaaaaaaaaaaaa","name":"job-3","owner":"ana","group":"research","queue":"research","kind":"batch","gang":{"pod_sets":[{"role":"worker","count":2,"resources":{"amounts":[["cpu",1500],["memory",2147483648],["nvidia.com/gpu",1]]},"min_count":null,"ends":"required","node_labels":{"gpu-model":"a100"},"cluster":null,"tolerations":[],"can_grow":false}]},"work":{"command":["python","train.py"],"image":null,"env":{"A":"1"},"workdir":null,"code":null,"inputs":[],"outputs":[{"name":"model","path":"model.pt","is_optional":false}],"framework":"none","sidecar":true,"grace_s":30.0},"submitted_at":1003.0,"order":3,"priority":0,"timeout_s":null,"retries":0,"after":[],"cluster":null,"labels":{"team":"x"},"phase":"Queued","reason":"","attempts":0,"failures":0,"failed_launches":0,"cancel_requested":false,"not_before":0.0,"avoid_nodes":[],"retry_of":null,"started_at":null,"ended_at":null,"exit_code":null,"preemptible":null}}');
INSERT INTO "journal" VALUES(5,1010.0,1,'JobCancelRequested','0002aaaaaaaaaaaaaaaaaaaaaaaaaaaa','ana',1,'{"job_id":"0002aaaaaaaaaaaaaaaaaaaaaaaaaaaa","by":"ana"}');
INSERT INTO "journal" VALUES(6,1011.0,1,'ProfileApplied','small','',1,'{"profile":{"name":"small","body":"{}","applied_by":"root","applied_at":1011.0}}');
CREATE TABLE keys (
	owner VARCHAR(256) NOT NULL, 
	"key" VARCHAR(256) NOT NULL, 
	digest VARCHAR(128) NOT NULL, 
	job_id VARCHAR(64) NOT NULL, 
	PRIMARY KEY (owner, "key"), 
	UNIQUE (job_id)
);
INSERT INTO "keys" VALUES('ana','k1','d1','0001aaaaaaaaaaaaaaaaaaaaaaaaaaaa');
CREATE TABLE meta (
	id INTEGER NOT NULL, 
	epoch BIGINT NOT NULL, 
	product VARCHAR(64) NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "meta" VALUES(1,1,'0.1.0.dev0');
CREATE TABLE profiles (
	name VARCHAR(256) NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "profiles" VALUES('small','{"name":"small","body":"{}","applied_by":"root","applied_at":1011.0}');
CREATE TABLE queues (
	name VARCHAR(256) NOT NULL, 
	place INTEGER NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "queues" VALUES('root',0,'{"name":"root","parent":null,"weight":1,"priority":0,"guaranteed":{"amounts":[]},"max":{"amounts":[]},"groups":[],"max_jobs":null,"max_pods":null,"clusters":[],"can_borrow":true,"can_reclaim":true,"stops_busy_notebooks":false,"overtaking":0.15,"overtaking_s":900.0,"class_cap_s":86400.0}');
INSERT INTO "queues" VALUES('research',1,'{"name":"research","parent":"root","weight":1,"priority":0,"guaranteed":{"amounts":[]},"max":{"amounts":[]},"groups":[],"max_jobs":null,"max_pods":null,"clusters":[],"can_borrow":true,"can_reclaim":true,"stops_busy_notebooks":false,"overtaking":0.15,"overtaking_s":900.0,"class_cap_s":86400.0}');
CREATE TABLE runs (
	id VARCHAR(64) NOT NULL, 
	owner VARCHAR(256) NOT NULL, 
	phase VARCHAR(32) NOT NULL, 
	created_at FLOAT NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE schema_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT schema_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "schema_version" VALUES('0001');
CREATE INDEX ix_journal_key_seq ON journal ("key", seq);
CREATE INDEX ix_jobs_phase_order_no ON jobs (phase, order_no);
CREATE INDEX ix_jobs_owner_order_no ON jobs (owner, order_no);
CREATE INDEX ix_attempts_phase ON attempts (phase);
CREATE INDEX ix_runs_owner ON runs (owner);
CREATE INDEX ix_runs_phase ON runs (phase);
COMMIT;
