/* Every prepared statement of the SQLite store, by name. Schema and indexes: migrations/sqlite/. Rows are read by position, so the
 * order of SQL_JOB_COLUMNS is that of store_read_job (sqlite_job.c). */
#ifndef SERVER_STORE_SQL_STATEMENTS_H
#define SERVER_STORE_SQL_STATEMENTS_H

#define SQL_JOB_COLUMNS                                                                                                                    \
    "row,id,client,state,cancel_requested,expired,priority,cost,created_ms,started_ms,finished_ms,expires_ms,attempt,crashes,boots,"       \
    "token,n,images_done,model,request,error_code,error_detail,run_at_ms,trace"
#define SQL_IMAGE_COLUMNS "number,file,seed,width,height,bytes,sha256,pixels_sha256,device,build,evaluations"

/* Unless its end is still to be told to a webhook, and ?1. */
#define SQL_NOT_UNTOLD                                                                                                                     \
    "NOT (?1 AND EXISTS(SELECT 1 FROM outbox WHERE outbox.job=job.row AND delivered_ms IS NULL AND next_ms<9223372036854775807))"

#define SQL_STATEMENTS(X)                                                                                                                  \
    X(SQL_BEGIN, "BEGIN IMMEDIATE")                                                                                                        \
    X(SQL_BEGIN_READ, "BEGIN")                                                                                                             \
    X(SQL_COMMIT, "COMMIT")                                                                                                                \
    X(SQL_ROLLBACK, "ROLLBACK")                                                                                                            \
    X(SQL_SAVEPOINT, "SAVEPOINT request")                                                                                                  \
    X(SQL_RELEASE, "RELEASE request")                                                                                                      \
    X(SQL_UNDO, "ROLLBACK TO request")                                                                                                     \
    /* Reading a job */                                                                                                                    \
    X(SQL_JOB_GET, "SELECT " SQL_JOB_COLUMNS " FROM job WHERE id=?1")                                                                      \
    X(SQL_IMAGES, "SELECT " SQL_IMAGE_COLUMNS " FROM image WHERE job=?1 ORDER BY number")                                                  \
    X(SQL_IMAGE_FILE, "SELECT file FROM image WHERE job=?1 AND number=?2")                                                                 \
    X(SQL_IMAGE_FILES, "SELECT file FROM image")                                                                                           \
    X(SQL_IMAGES_AFTER, "SELECT job,number,file,bytes,sha256 FROM image WHERE (job,number)>(?1,?2) ORDER BY job,number LIMIT ?3")          \
    X(SQL_IMAGE_THERE, "SELECT EXISTS(SELECT 1 FROM image WHERE job=?1 AND number=?2)")                                                    \
    X(SQL_INPUTS_NEEDED, "SELECT id||'-init.png' FROM job WHERE state<2 AND instr(request,'\"init_image\"')"                               \
      " UNION ALL SELECT id||'-mask.png' FROM job WHERE state<2 AND instr(request,'\"mask_image\"')")                                     \
    /* 1: no row names the file, and no claim that still holds is about to. */                                                             \
    X(SQL_IMAGE_LITTER,                                                                                                                    \
      "SELECT coalesce((SELECT NOT (EXISTS(SELECT 1 FROM image WHERE image.job=job.row AND file=?2)"                                       \
      " OR (state=1 AND token=?3) OR token<?3) FROM job WHERE id=?1),1)")                                                                  \
    X(SQL_IMAGE_NUMBERS, "SELECT number FROM image WHERE job=?1 ORDER BY number")                                                          \
    X(SQL_EVENTS, "SELECT seq,name,data FROM event WHERE job=?1 AND seq>?2 ORDER BY seq")                                                  \
    X(SQL_EVENT_ADD, "INSERT INTO event(job,seq,name,data) SELECT ?1,coalesce(max(seq),0)+1,?2,?3 FROM event WHERE job=?1 RETURNING seq")  \
    X(SQL_LIST_CLIENT,                                                                                                                     \
      "SELECT " SQL_JOB_COLUMNS " FROM job WHERE client=?1 AND (created_ms,row)<(?2,?3) AND expired=0 AND (?4<0 OR state=?4)"              \
      " AND (?5 IS NULL OR model=?5) ORDER BY created_ms DESC,row DESC LIMIT ?6")                                                          \
    X(SQL_LIST_ALL, "SELECT " SQL_JOB_COLUMNS " FROM job WHERE row<?1 AND expired=0 AND (?2<0 OR state=?2) AND (?3 IS NULL OR model=?3)"   \
                    " ORDER BY row DESC LIMIT ?4")                                                                                         \
    /* Queue */                                                                                                                            \
    X(SQL_QUEUE_PLACE, "SELECT priority,turn,row FROM job WHERE id=?1 AND state=0 AND run_at_ms IS NULL")                                  \
    X(SQL_BEFORE, "SELECT count(*),coalesce(sum(cost),0) FROM (SELECT cost FROM job WHERE state=0 AND run_at_ms IS NULL AND priority=?1"   \
                  " AND (turn,row)<(?2,?3) LIMIT ?4)")                                                                                     \
    X(SQL_FROM,                                                                                                                            \
      "SELECT count(*),coalesce(sum(cost),0) FROM job WHERE state=0 AND run_at_ms IS NULL AND priority=?1 AND (turn,row)>=(?2,?3)")        \
    X(SQL_LEVEL, "SELECT jobs,cost FROM total WHERE state=0 AND priority=?1")                                                              \
    X(SQL_HIGHER, "SELECT coalesce(sum(jobs),0),coalesce(sum(cost),0) FROM total WHERE state=0 AND priority>?1")                           \
    X(SQL_DELAYED_FROM, "SELECT count(*),coalesce(sum(cost),0) FROM job WHERE run_at_ms IS NOT NULL AND priority>=?1")                     \
    X(SQL_TOTALS, "SELECT state,sum(jobs),sum(cost) FROM total GROUP BY state")                                                            \
    X(SQL_QUEUED_MODELS,                                                                                                                   \
      "SELECT model FROM job WHERE state=0 AND run_at_ms IS NULL UNION SELECT model FROM job WHERE run_at_ms IS NOT NULL")                 \
    X(SQL_QUEUED, "SELECT sum(jobs),sum(cost) FROM total WHERE state=0")                                                                   \
    X(SQL_IMAGE_BYTES, "SELECT bytes FROM image_total")                                                                                    \
    /* Enqueue */                                                                                                                          \
    X(SQL_KEY_FIND, "SELECT fingerprint,jobs FROM idempotency WHERE client=?1 AND key=?2")                                                 \
    X(SQL_KEY_ADD, "INSERT INTO idempotency(client,key,fingerprint,jobs) VALUES(?1,?2,?3,?4) RETURNING row")                               \
    X(SQL_PENDING, "SELECT count(*) FROM job WHERE client=?1 AND state<2")                                                                 \
    X(SQL_TURN, "SELECT max(turn,coalesce((SELECT turn FROM client WHERE client=?1 AND priority=?2),0)) FROM level WHERE priority=?2")     \
    X(SQL_TURN_SET,                                                                                                                        \
      "INSERT INTO client(client,priority,turn) VALUES(?1,?2,?3) ON CONFLICT(client,priority) DO UPDATE SET turn=excluded.turn")           \
    X(SQL_JOB_ADD, "INSERT INTO job(id,client,idempotency,model,request,n,cost,priority,turn,created_ms,deadline_ms,trace)"                \
                   " VALUES(?1,?2,nullif(?3,0),?4,?5,?6,?7,?8,?9,?10,nullif(?11,0),nullif(?12,'')) RETURNING row")                         \
    /* Without INDEXED BY the whole queue of the priority is looked through. */                                                            \
    X(SQL_OVERTAKEN,                                                                                                                       \
      "SELECT coalesce(min(turn),-1) FROM job INDEXED BY job_pending WHERE client=?1 AND state<2 AND state=0 AND priority=?2"              \
      " AND (deadline_ms IS NULL OR deadline_ms>?3)")                                                                                      \
    X(SQL_OVERTAKE, "UPDATE job INDEXED BY job_pending SET turn=turn+?4"                                                                   \
                    " WHERE client=?1 AND state<2 AND state=0 AND priority=?2 AND turn>=?3")                                               \
    /* Claim */                                                                                                                            \
    X(SQL_LEVELS, "SELECT priority FROM total WHERE state=0 AND jobs>0 ORDER BY priority DESC")                                            \
    X(SQL_HEAD, "SELECT row,turn,created_ms FROM job WHERE state=0 AND run_at_ms IS NULL AND priority=?1 ORDER BY turn,row LIMIT 1")       \
    X(SQL_HEAD_MODEL,                                                                                                                      \
      "SELECT row,turn,created_ms FROM job WHERE state=0 AND run_at_ms IS NULL AND model=?2 AND priority=?1 ORDER BY turn,row LIMIT 1")    \
    X(SQL_CLAIM,                                                                                                                           \
      "UPDATE job SET state=1,attempt=attempt+1,token=token+1,owner=?2,started_ms=coalesce(started_ms,?3) WHERE row=?1 AND state=0"        \
      " RETURNING " SQL_JOB_COLUMNS)                                                                                                       \
    /* The second half: the clock was set back. */                                                                                         \
    X(SQL_STAGE, "UPDATE job SET run_at_ms=NULL WHERE run_at_ms IS NOT NULL AND (run_at_ms<=?1 OR run_at_ms>?1+?2) RETURNING 1")           \
    X(SQL_DELAYED_NEXT, "SELECT min(run_at_ms) FROM job WHERE run_at_ms IS NOT NULL")                                                      \
    X(SQL_LEVEL_TURN, "UPDATE level SET turn=max(turn,?2) WHERE priority=?1")                                                              \
    /* Deadlines */                                                                                                                        \
    X(SQL_DEADLINE_PAST,                                                                                                                   \
      "SELECT id,deadline_ms FROM job WHERE state=0 AND deadline_ms IS NOT NULL AND deadline_ms<=?1 ORDER BY deadline_ms LIMIT 1")         \
    X(SQL_DEADLINE_NEXT, "SELECT min(deadline_ms) FROM job WHERE state=0 AND deadline_ms IS NOT NULL")                                     \
    /* Running and ending */                                                                                                               \
    X(SQL_IMAGE_ADD, "INSERT INTO image(job," SQL_IMAGE_COLUMNS ") VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12)")                        \
    X(SQL_IMAGE_COUNTED, "UPDATE job SET images_done=images_done+1 WHERE row=?1 RETURNING images_done")                                    \
    X(SQL_JOB_END,                                                                                                                         \
      "UPDATE job SET state=?2,finished_ms=?3,expires_ms=nullif(?4,0),owner=NULL,error_code=?5,error_detail=?6,run_at_ms=NULL WHERE "      \
      "row=?1 AND state<2"                                                                                                                 \
      " RETURNING " SQL_JOB_COLUMNS)                                                                                                       \
    X(SQL_JOB_REQUEUE, "UPDATE job SET state=0,owner=NULL,attempt=attempt-?2,crashes=crashes+?3,boots=boots+?4,run_at_ms=nullif(?5,0) "    \
                       "WHERE row=?1 AND state=1")                                                                                         \
    X(SQL_JOB_STRIKES, "UPDATE job SET crashes=crashes+?2,boots=boots+?3 WHERE row=?1")                                                    \
    X(SQL_CANCEL_REQUEST, "UPDATE job SET cancel_requested=1,purge=max(purge,?2) WHERE row=?1")                                            \
    X(SQL_LAST_EVENT, "SELECT coalesce(max(seq),0) FROM event WHERE job=?1")                                                               \
    X(SQL_RUNNING_OTHERS, "SELECT id FROM job WHERE state=1 AND owner!=?1 ORDER BY turn,row")                                              \
    X(SQL_PENDING_IDS, "SELECT id FROM job WHERE state<2 ORDER BY id")                                                                     \
    /* Retention */                                                                                                                        \
    X(SQL_PURGE_NEXT, "SELECT row FROM job WHERE purge=1 AND expired=0 AND state>=2 LIMIT 1")                                              \
    X(SQL_ENDED_OLDEST,                                                                                                                    \
      "SELECT row,finished_ms FROM job WHERE state>=2 AND expired=0 AND " SQL_NOT_UNTOLD " ORDER BY finished_ms,row LIMIT 1")                   \
    X(SQL_ENDED_WITH_IMAGES, "SELECT row FROM job WHERE state>=2 AND expired=0 AND images_done>0 AND " SQL_NOT_UNTOLD                      \
                             " ORDER BY finished_ms,row LIMIT 1")        \
    X(SQL_FILES_OF, "SELECT 'images/'||file FROM image WHERE job=?1"                                                                       \
                    " UNION ALL SELECT 'inputs/'||id||'-init.png' FROM job WHERE row=?1 AND instr(request,'\"init_image\"')"               \
                    " UNION ALL SELECT 'inputs/'||id||'-mask.png' FROM job WHERE row=?1 AND instr(request,'\"mask_image\"')")              \
    X(SQL_JOB_STATE, "SELECT state FROM job WHERE id=?1")                                                                                  \
    X(SQL_IMAGES_DROP, "DELETE FROM image WHERE job=?1")                                                                                   \
    X(SQL_EVENTS_DROP, "DELETE FROM event WHERE job=?1")                                                                                   \
    X(SQL_EXPIRE, "UPDATE job SET expired=1,request=NULL,error_detail=NULL,expires_ms=?2 WHERE row=?1")                                    \
    X(SQL_FORGET, "DELETE FROM job WHERE row IN (SELECT row FROM job WHERE expired=1 AND expires_ms<=?1 ORDER BY expires_ms LIMIT ?2)"     \
                  " RETURNING idempotency")                                                                                                \
    X(SQL_KEY_FORGET, "DELETE FROM idempotency WHERE row=?1 AND NOT EXISTS (SELECT 1 FROM job WHERE idempotency=?1)")                      \
    X(SQL_CLIENTS_FORGET, "DELETE FROM client WHERE turn<=(SELECT turn FROM level WHERE level.priority=client.priority)")                  \
    /* Outbox. A row is done with when it was delivered or its next time is never. */                                                      \
    X(SQL_OUTBOX_ADD, "INSERT INTO outbox(job,url,next_ms) VALUES(?1,?2,?3)")                                                              \
    X(SQL_OUTBOX_DUE, "SELECT o.row,j.id,o.url,e.name,e.data,o.attempt,j.finished_ms,j.trace FROM outbox o JOIN job j ON j.row=o.job"      \
                      " JOIN event e ON e.job=o.job AND e.seq=(SELECT max(seq) FROM event WHERE job=o.job)"                                \
                      " WHERE o.delivered_ms IS NULL AND o.next_ms<=?1 ORDER BY o.next_ms LIMIT ?2")                                       \
    X(SQL_OUTBOX_LEFT, "SELECT count(*) FROM outbox WHERE delivered_ms IS NULL AND next_ms<9223372036854775807")                          \
    X(SQL_OUTBOX_DELIVERED, "UPDATE outbox SET attempt=attempt+1,delivered_ms=?2,last_error=NULL WHERE row=?1 AND delivered_ms IS NULL")   \
    X(SQL_OUTBOX_FAILED, "UPDATE outbox SET attempt=attempt+1,next_ms=?2,last_error=?3 WHERE row=?1 AND delivered_ms IS NULL")             \
    X(SQL_OUTBOX_OF, "SELECT o.attempt,o.delivered_ms IS NOT NULL,o.next_ms,coalesce(o.last_error,'') FROM outbox o"                       \
                     " JOIN job j ON j.row=o.job WHERE j.id=?1")                                                                           \
    X(SQL_OUTBOX_DROP, "DELETE FROM outbox WHERE job=?1")                                                                                  \
    /* API keys */                                                                                                                         \
    X(SQL_KEYS, "SELECT number,hash,client,created_ms,revoked_ms,scopes,rate,pending_jobs,budget FROM api_key ORDER BY created_ms,number") \
    X(SQL_API_KEY_ADD, "INSERT INTO api_key(number,hash,client,created_ms,scopes,rate,pending_jobs,budget) VALUES(?1,?2,?3,?4,?5,"         \
                       "nullif(CAST(?6 AS REAL),0.0),nullif(?7,0),nullif(CAST(?8 AS REAL),0.0))")                                          \
    X(SQL_API_KEY_REVOKE, "UPDATE api_key SET revoked_ms=?2 WHERE number=?1 AND revoked_ms IS NULL RETURNING 1")                           \
    /* Models */                                                                                                                           \
    X(SQL_MODEL_SET, "INSERT INTO model(name,description,updated_ms) VALUES(?1,?2,?3)"                                                     \
                     " ON CONFLICT(name) DO UPDATE SET description=excluded.description,updated_ms=excluded.updated_ms")                   \
    X(SQL_MODEL_GET, "SELECT description FROM model WHERE name=?1")

#endif
